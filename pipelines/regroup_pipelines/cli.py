"""The `regroup` command: one subcommand per config dataclass, parsed by tyro."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

import tyro

from regroup_pipelines.help_page import HELP
from regroup_pipelines.log import log, log_warnings
from regroup_pipelines.output import discard_output, write_line

if TYPE_CHECKING:
    from collections.abc import Callable

# The options for which tyro prints or writes a shell's completion script.
COMPLETIONS = ("--tyro-print-completion", "--tyro-write-completion")


def program_of(command: str) -> Callable[[Any], Any]:
    """Return the `main` of a command's module, imported only now so that help stays fast."""
    name = f"regroup_pipelines.commands.{command.replace('-', '_')}"
    main: Callable[[Any], Any] = importlib.import_module(name).main
    return main


def _configs() -> dict[str, type[Any]]:
    """Return the options of every command; the help page, which needs none, shows at once."""
    from regroup_pipelines.configs.table import CONFIGS

    return CONFIGS


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    """Handle SIGTERM (sent by `ray job stop`): unwind, so that workers end and files are closed."""
    sys.exit(128 + number)


def _execute(command: str, config: Any) -> int:
    """Run a command, print its summary as JSON where --json is given, return the exit status."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with log_warnings():
            summary = program_of(command)(config)
    except (KeyboardInterrupt, SystemExit) as stop:
        terminated = isinstance(stop, SystemExit)
        log(
            f"regroup {command}: {'terminated' if terminated else 'interrupted'}: the blocks that "
            "were committed stay in the store; run the same command again to continue"
        )
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is None:
            raise
        _print_summary(config, getattr(error, "summary", None))
        log(f"regroup {command}: {error}")
        return int(status)
    _print_summary(config, summary)
    return 0


def _print_summary(config: Any, summary: Any) -> None:
    """Print what a command did, or found before it failed, where --json is given."""
    if getattr(config, "json", False) and summary is not None:
        write_line(json.dumps(summary, indent=2, default=str))


def run_command(command: str, args: list[str] | None = None) -> None:
    """Parse the options of one command, run it and exit with its status."""
    kind, prog = _configs()[command], f"regroup {command}"
    words = sys.argv[1:] if args is None else args
    _run_alone(command, words)
    try:
        config = _parse(lambda: tyro.cli(kind, args=words, prog=prog))
    except SystemExit as stop:
        for line in nearest_options(kind, words) if stop.code else ():
            log(f"{prog}: {line}")
        raise
    sys.exit(_execute(command, config))


def nearest_options(kind: type[Any], words: list[str]) -> list[str]:
    """Return one suggestion for each misspelt option in `words`."""
    names = [field.name.replace("_", "-") for field in fields(kind)]
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | {"--help"}
    given = {word.partition("=")[0].replace("_", "-") for word in words if word[:2] == "--"}
    near = {word: get_close_matches(word, sorted(known), 1) for word in sorted(given - known)}
    return [f"{word}: did you mean {found[0]}?" for word, found in near.items() if found]


def _run_alone(command: str, words: list[str]) -> None:
    """Run and exit where `words` hold an option that needs no others, such as `attack --list`."""
    from regroup_pipelines.configs.table import ALONE

    for (name, option), (program, kind) in ALONE.items():
        if name == command and option in words:
            known = [word for word in words if word in (option, "--json", "--help")]
            config = _parse(lambda: tyro.cli(kind, args=known, prog=f"regroup {command}"))  # noqa: B023
            sys.exit(_execute(program, config))


def _parse(parse: Callable[[], Any]) -> Any:
    """Return what `parse` returns; exit quietly where the reader of the help is gone (`| head`)."""
    try:
        config = parse()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        sys.exit(0)
    return config


def main(args: list[str] | None = None) -> None:
    """Run the `regroup` command with `args` (default: those of the process)."""
    words = sys.argv[1:] if args is None else args
    first = words[0] if words else ""
    if first in ("-h", "--help", "help"):
        sys.exit(_parse(lambda: print(HELP)))
    elif first in _configs():
        run_command(first, words[1:])
    elif first in COMPLETIONS:
        _parse(lambda: _print_completion(words))
    else:
        sys.exit(_refuse(first))


def _refuse(word: str) -> int:
    """Report an unknown command or option with the nearest known one; return the exit status."""
    if not word:
        print(HELP, file=sys.stderr)
        return 2
    what = "option" if word.startswith("-") else "command"
    near = get_close_matches(word, [*_configs(), "--help", *COMPLETIONS], 1)
    advice = f"did you mean {near[0]}?" if near else "`regroup --help` lists them all"
    log(f"regroup: there is no {what} {word!r}: {advice}")
    return 2


def _print_completion(words: list[str]) -> None:
    """Print a shell's completion script: only this needs every command's options at once."""
    configs = {name: cast("Callable[..., Any]", kind) for name, kind in _configs().items()}
    tyro.extras.subcommand_cli_from_dict(configs, args=words, prog="regroup")


if __name__ == "__main__":
    main()
