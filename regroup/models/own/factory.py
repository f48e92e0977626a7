"""Finding and calling the user's "package.module:factory", whose code may do anything."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import sysconfig
import traceback
from contextlib import contextmanager, redirect_stdout
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regroup.errors import ConfigurationError, RegroupError, plain_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from regroup.models.spec import ModelSpec

_SIGNALLED = 128  # a handler of a signal ends a command by this and the signal's number
_OURS = Path(__file__).parents[2]


def made_network(spec: ModelSpec) -> nn.Module:
    """Import the module, call the factory and return its network.

    The working folder is importable. What the code prints goes to standard error, it sees no
    arguments in `sys.argv`, and the default dtype, default device and gradient mode that it sets do
    not outlive it. The factory gets `num_classes` if the spec gives it and it takes it. In place of
    a factory there may be an nn.Module.

    Raises:
        ConfigurationError: the factory cannot be imported, raises, calls sys.exit, takes arguments
            or does not return an nn.Module.
    """
    what = f"model {spec.name}"
    with own_surroundings():
        factory = found_factory(what, spec.name)
        network = factory if isinstance(factory, nn.Module) else _called(spec, factory)
    if isinstance(network, nn.Module):
        return network
    returned = f"model {spec.name} returned {type(network).__name__}, not a torch.nn.Module"
    if isinstance(network, tuple | list) and any(isinstance(p, nn.Module) for p in network):
        returned += ": return the network alone"
    raise ConfigurationError(returned)


def reason_of(error: BaseException) -> str:
    """Return an exception of somebody's code on one line, with the line of theirs that raised."""
    said = plain_line(error)
    kind = "" if isinstance(error, ImportError) and said else type(error).__name__
    place = "" if isinstance(error, SyntaxError) else _place(error)
    text = ": ".join(part for part in (kind, said) if part)
    return f"{text} ({place})" if place else text


@contextmanager
def refused_failures(what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever somebody's code raises into one sentence: `what`, the reason, `advice`.

    An interruption by the user or by a signal is passed on, as are our own errors.

    Raises:
        ConfigurationError: the code raised.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, RegroupError):
        raise
    except SystemExit as stop:
        if isinstance(stop.code, int) and stop.code > _SIGNALLED:
            raise
        raise ConfigurationError(
            f"{what}: it calls sys.exit ({plain_line(stop.code)}), which neither a module nor a "
            'factory may: put what runs as a program under if __name__ == "__main__"'
        ) from stop
    except BaseException as error:
        raise ConfigurationError(f"{what}: {reason_of(error)}{advice}") from error


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Run somebody's code so that what it prints and sets does not outlive it."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradients = torch.is_grad_enabled()
    try:
        with redirect_stdout(sys.stderr), _importable_folder():
            yield
    finally:
        sys.argv = arguments
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)


@contextmanager
def _importable_folder() -> Iterator[None]:
    """Put the working folder first on the import path, and leave it at its end.

    The installed `regroup` has it nowhere, unlike `python -m`. At the end it hides no module from
    code that is imported later.
    """
    try:
        folder = str(Path.cwd())
    except OSError:  # it was deleted
        folder = ""
    if not folder or {"", folder} & set(sys.path):
        yield
        return
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        sys.path.append(folder)


def found_factory(what: str, name: str) -> Any:
    """Import the callable `name`, "package.module:factory"; `what` it is, for messages.

    Raises:
        ConfigurationError: it cannot be imported, or is not callable.
    """
    module_name, _, attribute = name.partition(":")
    _check_spelling(what, module_name, attribute)
    failed = f"{what} cannot be imported"
    with refused_failures(failed):
        module = importlib.import_module(module_name)
    try:
        with refused_failures(failed):
            found = reduce(getattr, attribute.split("."), module)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, AttributeError):
            raise
        raise ConfigurationError(f"{failed}: {_nothing_called(module, attribute)}") from error
    if not callable(found):
        raise ConfigurationError(f"{what} is not callable: give a function or a class")
    return found


def _nothing_called(module: object, attribute: str) -> str:
    bare = attribute.partition("(")[0]
    near = difflib.get_close_matches(bare, [n for n in dir(module) if n[0] != "_"], n=1)
    hint = f": did you mean {near[0]}?" if near else ""
    return f"its module has nothing called {attribute!r}{hint}"


def _check_spelling(what: str, module: str, attribute: str) -> None:
    if module.endswith(".py") or "/" in module:
        path = Path(module.removesuffix(".py"))
        inside = not path.is_absolute() and ".." not in path.parts
        dotted = ".".join(path.parts) if inside else path.name
        where = "" if inside else f" and start the command in {path.parent}"
        raise ConfigurationError(
            f"{what} names a file where a module is needed: write "
            f"{dotted}:{attribute or 'FACTORY'}{where}"
        )
    if not module or not attribute or module.startswith("."):
        raise ConfigurationError(
            f"{what} cannot be imported: write package.module:factory, both parts complete"
        )


def _called(spec: ModelSpec, factory: Callable[..., object]) -> object:
    options = _options(spec, factory)
    with refused_failures(f"model {spec.name} failed"):
        return factory(**options)


def _options(spec: ModelSpec, factory: Callable[..., object]) -> dict[str, int]:
    """Return what the factory is called with.

    Raises:
        ConfigurationError: it needs more.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some callables of other languages have none
        return {}
    takes = spec.num_classes is not None and "num_classes" in signature.parameters
    options = {"num_classes": spec.num_classes or 0} if takes else {}
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ConfigurationError(
            f"model {spec.name} takes arguments ({plain_line(error)}): give a function that needs "
            "none and makes the network"
        ) from error
    return options


def _place(error: BaseException) -> str:
    """Return "file, line" of the last frame in the user's code, "" if none is."""
    standard = sysconfig.get_paths()["stdlib"]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", standard, str(_OURS)))
        and "site-packages" not in frame.filename
    ]
    return (
        f"{plain_line(Path(frames[-1].filename).name)}, line {frames[-1].lineno}" if frames else ""
    )
