"""A module as the rest can use it: unwrapped, with values, on the CPU, in eval state."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from regroup.errors import ConfigurationError
from regroup.models.own.attributes import SAID
from regroup.models.own.factory import refused_failures


def plain_module(network: nn.Module, model: str) -> nn.Module:
    """Return the network behind torch.compile and DataParallel, on the CPU and in eval state.

    Raises:
        ConfigurationError: parts have no values yet (lazy layers, the meta device), or the module
            cannot be moved or set to evaluation.
    """
    network = _unwrapped(network)
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        _check_values(name, tensor, model)
    with refused_failures(
        f"model {model} cannot be put into evaluation mode on the CPU",
        "; give the module from before it was exported or converted",
    ):
        network = network.cpu().eval()
    _leave_inference_mode(network)
    return network


def _unwrapped(network: nn.Module) -> nn.Module:
    while True:
        inner = getattr(network, "_orig_mod", None)
        if inner is None and isinstance(network, nn.DataParallel):
            inner = network.module
        if not isinstance(inner, nn.Module):
            break
        for name in set(SAID) & set(vars(network)):  # what was said on the wrapper stays said
            setattr(inner, name, getattr(network, name))
        network = inner
    for module in network.modules():
        if getattr(module, "_compiled_call_impl", None) is not None:  # module.compile()
            module._compiled_call_impl = None
    return network


def _check_values(name: str, tensor: Tensor, model: str) -> None:
    if is_lazy(tensor):
        raise ConfigurationError(
            f"model {model} has lazy layers without a shape ({name}): run the network once on an "
            "image in the factory, and load its weights then"
        )
    if tensor.is_meta:
        raise ConfigurationError(
            f"model {model} has tensors without values ({name} is on the meta device): make them "
            'on the CPU (to_empty(device="cpu")) and load their values in the factory'
        )


def _leave_inference_mode(network: nn.Module) -> None:
    """Copy tensors that were made under `torch.inference_mode`: gradients cannot pass those."""
    made: dict[Tensor, Tensor] = {}
    for module in network.modules():
        tensors: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in tensors:
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    held[name] = made.setdefault(tensor, _copy(tensor))


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy


def as_float32(network: nn.Module) -> set[torch.dtype]:
    """Turn floating parameters and buffers into float32; return the other types that there were."""
    tensors = chain(network.parameters(), network.buffers())
    others = {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}
    if others:
        network.float()
    return others
