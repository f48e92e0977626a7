"""The `regroup` command: one subcommand per config dataclass, parsed by tyro."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import fields
from difflib import get_close_matches
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import tyro

from regroup_cluster.printable import printable
from regroup_pipelines.errors import explained, interruption, signal_behind, stop_at_signals
from regroup_pipelines.help_page import HELP
from regroup_pipelines.log import log, log_warnings
from regroup_pipelines.output import lasting_streams, write_line

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


def _show_crash(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Show the traceback of an unforeseen error, with whatever its message quotes made harmless."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(printable(text), end="", file=sys.stderr)


def _execute(command: str, config: Any) -> int:
    """Run a command, print its summary as JSON where --json is given, return the exit status."""
    stop_at_signals()
    sys.excepthook = _show_crash
    try:
        with log_warnings(), _json_alone(config):
            summary = program_of(command)(config)
    except BaseException as error:
        if number := signal_behind(error):
            log(f"regroup {command}: {interruption(number)}")
            return 128 + number
        if (known := explained(error)) is None:
            raise
        _print_summary(config, getattr(error, "summary", None))
        log(f"regroup {command}: {known[1]}")
        return known[0]
    _print_summary(config, summary)
    return 0


def _json_alone(config: Any) -> AbstractContextManager[Any]:
    """Send what others print (a network's module) to standard error where --json is given."""
    return redirect_stdout(sys.stderr) if getattr(config, "json", False) else nullcontext()


def _print_summary(config: Any, summary: Any) -> None:
    """Print what a command did, or found before it failed, where --json is given."""
    if getattr(config, "json", False) and summary is not None:
        write_line(json.dumps(summary, indent=2, default=str))


def run_command(command: str, args: list[str] | None = None) -> None:
    """Parse the options of one command, run it and exit with its status."""
    words = sys.argv[1:] if args is None else args
    _exit_with(lambda: _run(command, words), words)


def _exit_with(run: Callable[[], int], words: list[str]) -> None:
    """Exit with the status of `run`, or with that of what cannot be told or read."""
    with lasting_streams() as output:
        status = _undecodable(words) or _status(run)
        output.flush()
        if output.lost and not status:
            log(
                f"regroup: standard output cannot be written ({output.lost.strerror}): the work is "
                "done, but what was printed is lost: run the same command again with another output"
            )
            status = 1
    sys.exit(status)


def _status(run: Callable[[], int]) -> Any:
    try:
        return run()
    except SystemExit as stop:  # of the parser
        return stop.code or 0
    except KeyboardInterrupt:  # before the command began
        log("regroup: interrupted: nothing was done")
        return 128 + signal.SIGINT


def _undecodable(words: list[str]) -> int:
    """Refuse words that are no text: what is named so could not be recorded in a store."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = word.encode(errors="backslashreplace").decode()
            log(
                f"regroup: {shown} is not UTF-8, so that no record could name it: rename the file, "
                "or reach it by a link with another name"
            )
            return 2
    return 0


def _run(command: str, words: list[str]) -> int:
    kind, prog = _configs()[command], f"regroup {command}"
    if (alone := _run_alone(command, words)) is not None:
        return alone
    try:
        config = tyro.cli(kind, args=words, prog=prog)
    except SystemExit as stop:
        for line in nearest_options(kind, words) if stop.code else ():
            log(f"{prog}: {line}")
        raise
    return _execute(command, config)


def nearest_options(kind: type[Any], words: list[str]) -> list[str]:
    """Return one suggestion for each misspelt option in `words`."""
    names = [field.name.replace("_", "-") for field in fields(kind)]
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | {"--help"}
    given = {word.partition("=")[0].replace("_", "-") for word in words if word[:2] == "--"}
    near = {word: get_close_matches(word, sorted(known), 1) for word in sorted(given - known)}
    return [f"{word}: did you mean {found[0]}?" for word, found in near.items() if found]


def _run_alone(command: str, words: list[str]) -> int | None:
    """Run where `words` hold an option that needs no others, such as `attack --list`; else None."""
    from regroup_pipelines.configs.table import ALONE

    for (name, option), (program, kind) in ALONE.items():
        if name == command and option in words:
            known = [word for word in words if word in (option, "--json", "--help")]
            return _execute(program, tyro.cli(kind, args=known, prog=f"regroup {command}"))
    return None


def main(args: list[str] | None = None) -> None:
    """Run the `regroup` command with `args` (default: those of the process)."""
    words = sys.argv[1:] if args is None else args
    _exit_with(lambda: _main(words), words)


def _main(words: list[str]) -> int:
    first = words[0] if words else ""
    if first in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if first == "--version":
        print(f"regroup-ray {version('regroup-ray')}")
        return 0
    if first in _configs():
        return _run(first, words[1:])
    if first in COMPLETIONS:
        _print_completion(words)
        return 0
    return _refuse(first)


def _refuse(word: str) -> int:
    """Report an unknown command or option with the nearest known one; return the exit status."""
    if not word:
        print(HELP, file=sys.stderr)
        return 2
    what = "option" if word.startswith("-") else "command"
    near = get_close_matches(word, [*_configs(), "--help", "--version", *COMPLETIONS], 1)
    advice = f"did you mean {near[0]}?" if near else "`regroup --help` lists them all"
    log(f"regroup: there is no {what} {word!r}: {advice}")
    return 2


def _print_completion(words: list[str]) -> None:
    """Print a shell's completion script: only this needs every command's options at once."""
    configs = {name: cast("Callable[..., Any]", kind) for name, kind in _configs().items()}
    tyro.extras.subcommand_cli_from_dict(configs, args=words, prog="regroup")


if __name__ == "__main__":
    main()
