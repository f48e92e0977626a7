"""Which axis of a tensor holds the channels: tracked from the layer that made it.

The rank of a tensor does not determine it: ConvNeXt and Swin carry (N, H, W, C), convolutions (N,
C, H, W). So discovery watches every torch function of one forward pass and keeps, for every tensor
that is alive, the channel axis that follows from the functions it went through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence

_CHANNELS_SECOND = frozenset({"batch_norm", "group_norm", "instance_norm"})
_CHANNELS_LAST = frozenset(
    {"linear", "rms_norm", "multi_head_attention_forward", "matmul", "embedding"}
)
_SHAPE_FUNCTIONS = frozenset(
    """T mT adjoint t transpose swapaxes swapdims permute movedim moveaxis reshape view flatten
    unflatten squeeze unsqueeze getitem select narrow chunk split unbind tile repeat roll
    mean sum amax amin""".split()  # noqa: SIM905
)


def function_name(function: Callable[..., Any]) -> str:
    """Return the plain name of a torch function.

    "relu" for F.relu, torch.relu, Tensor.relu and Tensor.relu_. A property (`x.mT`) arrives as the
    bound `__get__` of its descriptor and is named after it.
    """
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
    return name.strip("_")


def default_channel_axis(rank: int) -> int:
    """Return the channel axis of a tensor of unknown origin: the last of (N, T, C), else 1."""
    return 2 if rank == 3 else 1


class ChannelAxisTracker:
    """Channel axes of the tensors of one forward pass, and which tensors the pixels cannot change.

    Tensors are held weakly and by identity, so none outlives its layer and an in-place function
    (which returns its argument) updates the entry of its argument.

    What is computed from constants alone (the position bias of Swin v2) is constant too: no
    response to the image, hence no tap. A tensor of unknown origin counts as a response, so that a
    lost trace shows as an error and not as a missing tap.

    Args:
        constants: the model's parameters and buffers.
    """

    def __init__(self, constants: Iterable[Tensor]) -> None:
        self._axes: MutableMapping[Tensor, int | None] = WeakIdKeyDictionary()
        self._constants: MutableMapping[Tensor, bool] = WeakIdKeyDictionary()
        for tensor in constants:
            self._constants[tensor] = True

    def is_constant(self, tensor: Tensor) -> bool:
        """Return whether `tensor` was computed from parameters and buffers alone."""
        return tensor in self._constants

    def channel_axis(self, tensor: Tensor) -> int:
        """Return the channel axis of `tensor`, non-negative; by rank if its origin is unknown."""
        axis = self._axes.get(tensor)
        return default_channel_axis(tensor.dim()) if axis is None else axis

    def call(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Call `function` and track the tensors it returns."""
        inputs = list(_tensors((args, kwargs)))
        constant = bool(inputs) and all(self.is_constant(tensor) for tensor in inputs)
        tagged = [(t.dim(), axis) for t in inputs if (axis := self._axes.get(t)) is not None]
        # Before the call: an in-place transpose changes the shape of its argument.
        moved = self._probe(name, function, args, kwargs)
        result = function(*args, **kwargs)
        if name == "setitem" and not constant:
            self._constants.pop(args[0], None)
        for index, output in enumerate(_tensors(result)):
            if name in _SHAPE_FUNCTIONS:
                axis = moved[index] if index < len(moved) else None
            else:
                axis = _made_axis(name, output, args, kwargs, tagged)
            self._enter(output, axis, constant)
        return result

    def _enter(self, output: Tensor, axis: int | None, constant: bool) -> None:
        if constant:
            self._constants[output] = True
            return
        self._constants.pop(output, None)
        self._axes[output] = axis

    def _probe(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> list[int | None]:
        """Return the channel axis of each output of a function that moves axes, by trying it.

        The function is called on a tensor of the same shape that holds the channel's number
        everywhere: the axis along which the result varies is that of the channels. This one rule
        covers permute, movedim, reshape, flatten, indexing and whatever einops makes of them.
        """
        if name not in _SHAPE_FUNCTIONS or not args or not isinstance(args[0], Tensor):
            return []
        axis = self._axes.get(args[0])
        if axis is None:
            return []
        numbers = torch.arange(args[0].shape[axis], dtype=torch.float64, device=args[0].device)
        shape = [1] * args[0].dim()
        shape[axis] = -1
        probe = numbers.view(shape).expand(args[0].shape).contiguous()
        return [_varying_axis(output) for output in _tensors(function(probe, *args[1:], **kwargs))]


def _made_axis(
    name: str,
    output: Tensor,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tagged: Sequence[tuple[int, int]],
) -> int | None:
    """Return an output's channel axis: the function's own rule, else an equal-rank input's."""
    if name.startswith("conv") and name.endswith("d"):
        return output.dim() - 1 - int(name[-2])
    if name in _CHANNELS_SECOND:
        return 1
    if name in _CHANNELS_LAST or (name == "layer_norm" and len(_normalised(args, kwargs)) == 1):
        return output.dim() - 1
    return next((axis for rank, axis in tagged if rank == output.dim()), None)


def _normalised(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Sequence[int]:
    shape: Sequence[int] = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    return shape


def _varying_axis(probe: Tensor) -> int | None:
    """Return the one axis along which `probe` varies; None if none or several do."""
    varying = [
        axis
        for axis in range(probe.dim())
        if probe.shape[axis] > 1 and bool((probe != probe.narrow(axis, 0, 1)).any())
    ]
    return varying[0] if len(varying) == 1 else None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
