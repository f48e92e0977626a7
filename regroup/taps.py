"""Taps: the points of a network at which pre-activation responses are recorded.

Taps are found by watching the torch functions of one forward pass rather than the modules: an
activation may be a module used several times, in place, or a bare function call, and all of these
are one call of a torch function. Only the outermost call counts (F.relu6 calls F.hardtanh).

Tapped are, by policy:

- `preactivation`: the input of every element-wise activation function, in execution order, and the
  logits, of all classes even if the candidates are fewer. Softmax and GLU are not element-wise and
  make no tap; nor does `clamp`.
- `linear`: the output of every convolution (transposed too) and linear function. Attention through
  `F.multi_head_attention_forward` is one torch function whose result is the output of its
  out-projection: that is the tap; its fused in-projection does not count as a layer.

A response that does not depend on the pixels (computed from parameters and buffers alone) makes no
tap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regroup.channel_axes import ChannelAxisTracker, function_name
from regroup.errors import ConfigurationError, RegroupError
from regroup.models.classifier import Classifier
from regroup.models.outputs import logits_of
from regroup.module_path import ModulePath

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType


TapPolicy = Literal["preactivation", "linear"]
TAP_POLICIES: tuple[TapPolicy, ...] = get_args(TapPolicy)

LOGITS_TAP = "logits"
ACTIVATIONS = frozenset(
    """celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid logsigmoid
    mish prelu relu relu6 rrelu selu sigmoid silu softplus softshrink softsign special_expit tanh
    tanhshrink threshold""".split()  # noqa: SIM905
)
_ATTENTION = "multi_head_attention_forward"
_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
LINEARS = frozenset(
    [f"conv{kind}{rank}d" for kind in ("", "_transpose") for rank in (1, 2, 3)]
    + ["linear", _ATTENTION]
)


@dataclass(frozen=True)
class Tap:
    """One tap.

    Attributes:
        name: unique in its model and file-safe ([A-Za-z0-9._-]): module path, then the function if
            the module is not a leaf, then ".2", ".3", ... for later uses; the final logits under
            `preactivation` are "logits".
        channels: C.
        channel_axis: the axis, non-negative, that holds the channels in the tapped tensor (whose
            axis 0 holds the samples).
    """

    name: str
    channels: int
    channel_axis: int


@dataclass(frozen=True)
class TapCall:
    """A call that the policy watches.

    Attributes:
        function: name of the torch function.
        tap: its tap; None for a constant response.
        rows: the length of axis 0 for one sample: 1, or the number of windows where a network folds
            them into the batch (Swin).
    """

    function: str
    tap: Tap | None
    rows: int


@dataclass(frozen=True)
class TapPlan:
    """The watched calls of one forward pass, in order.

    Attributes:
        policy: the tap policy.
        calls: in execution order.
        logits: the final tap, if the policy has one.
    """

    policy: TapPolicy
    calls: tuple[TapCall, ...]
    logits: Tap | None

    @property
    def taps(self) -> tuple[Tap, ...]:
        """All taps in execution order."""
        found = tuple(call.tap for call in self.calls if call.tap is not None)
        return found if self.logits is None else (*found, self.logits)


class _CallWatcher(TorchFunctionMode, ABC):
    """Passes the response of every call that `policy` watches to `_meet`, samples on axis 0."""

    def __init__(self, policy: TapPolicy) -> None:
        super().__init__()
        self._before = policy == "preactivation"
        self._watched = ACTIVATIONS if self._before else LINEARS

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name not in self._watched:
            return self._call(name, func, args, kwargs)
        if self._before:  # before the call: the activation may be in place
            self._meet(name, args[0] if args else kwargs["input"])
            return self._call(name, func, args, kwargs)
        result = self._call(name, func, args, kwargs)
        self._meet(name, result[0] if name == _ATTENTION else result)
        return result

    def _call(
        self,
        name: str,  # noqa: ARG002
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        return function(*args, **kwargs)

    @abstractmethod
    def _meet(self, function: str, response: Tensor) -> None: ...


class TapRecorder(_CallWatcher):
    """Context manager for one forward pass: passes each tap's response to `receive`.

    The logits tap is not a call and is left to the caller.

    Args:
        plan: the calls and taps to expect.
        sample_count: samples of the pass.
        receive: called as `receive(index, response)` before the network continues, with the index
            of the tap in `plan.taps` and the response, samples on axis 0 (of length rows *
            `sample_count`).
        keep_graph: responses stay part of autograd's graph; otherwise they are detached.

    Raises:
        RegroupError: the pass differs from that of `plan`: another order or number of calls
            (data-dependent control flow), other channels, or an axis 0 that does not hold the
            samples.
    """

    def __init__(
        self,
        plan: TapPlan,
        sample_count: int,
        receive: Callable[[int, Tensor], None],
        *,
        keep_graph: bool = False,
    ) -> None:
        super().__init__(plan.policy)
        self._calls = plan.calls
        self._keep_graph = keep_graph
        self._sample_count = sample_count
        self._receive = receive
        self._met = 0
        self._tap = 0

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)  # type: ignore[no-untyped-call]
        if exc_type is None and self._met != len(self._calls):
            raise _other_flow(f"it ended after {self._met} of {len(self._calls)} calls")

    def _meet(self, function: str, response: Tensor) -> None:
        if self._met == len(self._calls):
            raise _other_flow(f"it continued with {function} after {self._met} calls")
        call = self._calls[self._met]
        self._met += 1
        if call.function != function:
            raise _other_flow(f"call {self._met} is {function}, not {call.function}")
        if call.tap is None:
            return
        if not self._keep_graph:
            response = response.detach()
        response = _samples_first(function, response)
        if response.is_quantized:
            response = response.dequantize()
        self._check(call.tap, call.rows, response)
        self._receive(self._tap, response)
        self._tap += 1

    def _check(self, tap: Tap, rows: int, response: Tensor) -> None:
        shape = tuple(response.shape)
        if len(shape) <= tap.channel_axis or shape[tap.channel_axis] != tap.channels:
            raise _other_flow(f"tap {tap.name} has shape {shape}, not {tap.channels} channels")
        if shape[0] != rows * self._sample_count:
            raise RegroupError(
                f"axis 0 of tap {tap.name} does not hold the samples: its shape is {shape} for "
                f"{self._sample_count} samples, and one sample alone had {rows} rows; give the "
                "network images of the size of the example, and keep the batch on axis 0"
            )


class _Discoverer(_CallWatcher):
    """Collects the calls of a plan from one forward pass of one sample."""

    def __init__(self, policy: TapPolicy, provenance: ChannelAxisTracker, path: ModulePath) -> None:
        super().__init__(policy)
        self.calls: list[TapCall] = []
        self._provenance = provenance
        self._path = path
        self._names = {LOGITS_TAP} if policy == "preactivation" else set()

    def _call(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        return self._provenance.call(name, function, args, kwargs)

    def _meet(self, function: str, response: Tensor) -> None:
        if self._provenance.is_constant(response):
            self.calls.append(TapCall(function, None, 0))
            return
        name = self._unique(self._path.name("out_proj" if function == _ATTENTION else function))
        axis = self._provenance.channel_axis(response)
        if not 0 < axis < response.dim():
            raise ConfigurationError(
                f"tap {name} has shape {tuple(response.shape)} with its channels on axis {axis}; "
                "a tap needs the samples on axis 0 and the channels on another"
            )
        tap = Tap(name, response.shape[axis], axis)
        self.calls.append(TapCall(function, tap, _samples_first(function, response).shape[0]))

    def _unique(self, name: str) -> str:
        unique, use = name, 1
        while unique in self._names:
            use += 1
            unique = f"{name}.{use}"
        self._names.add(unique)
        return unique


def discover_taps(
    model: nn.Module, example: Tensor, policy: TapPolicy, *, root_module: nn.Module | None = None
) -> tuple[Tap, ...]:
    """Return the taps of `model` under `policy`, in execution order, from one forward pass.

    Args:
        model: the network, in evaluation mode.
        example: (N, 3, H, W) pixels as the network will see them; the first sample is used.
        policy: the tap policy.
        root_module: the submodule that names are relative to; by default `model`.

    Raises:
        ConfigurationError: see `plan_taps`.
    """
    return plan_taps(model, example, policy, root_module=root_module).taps


def plan_taps(
    model: nn.Module, example: Tensor, policy: TapPolicy, *, root_module: nn.Module | None = None
) -> TapPlan:
    """Return the calls and taps of one forward pass of the first sample of `example` (N, 3, H, W).

    One sample, because then its rows on axis 0 are known to be its own: a batch on another axis
    shows as soon as two samples are run.

    Raises:
        ConfigurationError: an unknown policy, a model in training mode, a scripted or compiled
            part, output other than (N, M) logits, or a model without anything to tap.
    """
    if policy not in TAP_POLICIES:
        raise ConfigurationError(
            f"unknown tap policy {policy!r}: choose from {', '.join(TAP_POLICIES)}"
        )
    check_evaluation_mode(model)
    _refuse_opaque(model, policy)
    provenance = ChannelAxisTracker([*model.parameters(), *model.buffers()])
    with torch.no_grad(), ModulePath(model, root_module or model) as path:
        discoverer = _Discoverer(policy, provenance, path)
        with discoverer:
            output = respond(model, example[:1])
    logits = logits_of(output, 1)
    final = Tap(LOGITS_TAP, logits.shape[1], 1) if policy == "preactivation" else None
    plan = TapPlan(policy, tuple(discoverer.calls), final)
    _refuse_empty(model, plan)
    return plan


def respond(model: nn.Module, pixels: Tensor) -> object:
    """Return the network's output for `pixels` (N, 3, H, W); for a restricted one, of all classes.

    A restriction decides which classes can win. The responses of the logits tap, as those of every
    other, are the network's own.
    """
    # A copy: a network of anybody's may write into its input, which is the caller's.
    return model.all_logits(pixels) if isinstance(model, Classifier) else model(pixels.clone())


def check_evaluation_mode(model: nn.Module) -> None:
    """Raise ConfigurationError if a part of `model` is in training mode."""
    for path, module in model.named_modules():
        if module.training:
            raise ConfigurationError(
                f"the model is in training mode (module {path or 'itself'!r}), where a sample's "
                "responses depend on its batch: call model.eval() first"
            )


def _refuse_opaque(model: nn.Module, policy: TapPolicy) -> None:
    for path, module in model.named_modules():
        if _is_quantised(module, policy):
            raise ConfigurationError(
                f"the layer {path or 'itself'!r} is quantised, and its responses cannot be tapped "
                f"under policy {policy!r}: give the network from before its quantisation"
                + (", or use policy 'preactivation'" if policy == "linear" else "")
            )
        compiled = getattr(module, "_compiled_call_impl", None) or hasattr(module, "_orig_mod")
        if isinstance(module, torch.jit.ScriptModule) or compiled:
            raise ConfigurationError(
                f"module {path or 'itself'!r} of the model is scripted or compiled, so its layers "
                "cannot be tapped; pass the model from before torch.jit or torch.compile"
            )


def _is_quantised(module: nn.Module, policy: TapPolicy) -> bool:
    """Whether a module computes a response of `policy` by quantised kernels, which are no calls."""
    kind = type(module)
    if not kind.__module__.startswith(_QUANTISED):
        return False
    if policy == "linear":
        return callable(getattr(module, "weight", None))
    return "ReLU" in kind.__name__ or "activation" in kind.__module__


def _refuse_empty(model: nn.Module, plan: TapPlan) -> None:
    if any(call.tap is not None for call in plan.calls):
        return
    sought, other = (
        ("an element-wise activation function", "linear")
        if plan.policy == "preactivation"
        else ("a convolution or linear layer", "preactivation")
    )
    raise ConfigurationError(
        f"nothing to tap in {type(model).__name__} under policy {plan.policy!r}: its forward pass "
        f"calls no function known as {sought}; if no part of it is scripted, compiled or a custom "
        f"kernel, try policy {other!r}"
    )


def _samples_first(function: str, response: Tensor) -> Tensor:
    """Return `response` with samples on axis 0: attention has (L, N, E), all others (N, ...)."""
    return response.transpose(0, 1) if function == _ATTENTION else response


def _other_flow(difference: str) -> RegroupError:
    return RegroupError(
        f"this forward pass differs from the one in which the taps were found: {difference}; a "
        "network whose control flow depends on its input cannot be tapped"
    )
