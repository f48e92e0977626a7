"""What a user's module says about itself: its normalisation and its preprocessing."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from regroup.errors import ConfigurationError, plain_line
from regroup.images.preprocessing import Preprocessing
from regroup.models.classifier import Normalisation

SAID = ("normalize_mean", "normalize_std", "preprocessing", "class_names")


def said(network: nn.Module, name: str) -> Any:
    """Return what `network` says under `name`; None for nothing.

    A submodule or a method of that name is a stage of the network's own.
    """
    value = getattr(network, name, None)
    return None if isinstance(value, nn.Module) or inspect.isroutine(value) else value


def own_stages(network: nn.Module) -> list[str]:
    """Return a sentence for each of our attributes' names that the network uses otherwise."""
    found = []
    for name in SAID[:3]:
        if getattr(network, name, None) is not None and said(network, name) is None:
            found.append(f"its {name} is a stage of its own and not read as an attribute")
        elif name in dict(network.named_buffers(recurse=False)):
            found.append(
                f"its buffer {name} is applied before forward: rename it if forward applies it"
            )
    return found


def normalisation_of_module(network: nn.Module, model: str) -> Normalisation:
    """Return the normalisation by `normalize_mean` and `normalize_std`, each of any form.

    Three numbers or one for all channels: in a tensor or an array of any shape, a list or a tuple,
    or a bare number.

    Raises:
        ConfigurationError: they are no such numbers.
    """
    mean, std = (
        _channels(said(network, name), default, f"model {model}: {name}")
        for name, default in (
            ("normalize_mean", Normalisation.mean),
            ("normalize_std", Normalisation.std),
        )
    )
    return Normalisation(mean, std)


def preprocessing_of_module(network: nn.Module, model: str) -> Preprocessing | None:
    """Return the attribute `preprocessing`, if there is one.

    Raises:
        ConfigurationError: it is something else than a `Preprocessing`.
    """
    value = said(network, "preprocessing")
    if value is None or isinstance(value, Preprocessing):
        return value
    shown = plain_line(value) if isinstance(value, int | float | str) else type(value).__name__
    raise ConfigurationError(
        f"model {model}: preprocessing is {shown}: give a regroup.images.preprocessing."
        "Preprocessing(crop, resize), or leave it out and give --crop and --resize"
    )


def _channels(
    value: object, default: tuple[float, float, float], what: str
) -> tuple[float, float, float]:
    if value is None:
        return default
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64).detach().flatten().tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"{what} is {type(value).__name__} ({plain_line(error)}): give three numbers, or one"
        ) from error
    if len(numbers) not in (1, 3):
        raise ConfigurationError(f"{what} has {len(numbers)} values: give three numbers, or one")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue
