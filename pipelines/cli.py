"""The `regroup` command: one subcommand a job, made from its config dataclass by tyro."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

import tyro

if TYPE_CHECKING:
    from collections.abc import Callable

# Subcommand -> module with a `main(config)` and a config dataclass. Modules import nothing
# heavy at the top, so that `--help` and `ls` start at once.
COMMANDS = {
    "demo": ("pipelines.demo", "DemoConfig"),
    "index-dataset": ("pipelines.index_dataset", "IndexConfig"),
    "extract": ("pipelines.extract", "ExtractConfig"),
    "build-bank": ("pipelines.build_bank", "BuildBankConfig"),
    "attack": ("pipelines.attack", "AttackConfig"),
    "evaluate": ("pipelines.evaluate", "EvaluateConfig"),
    "rescore": ("pipelines.rescore", "RescoreConfig"),
    "curve": ("pipelines.curve", "CurveConfig"),
    "run": ("pipelines.run", "RunConfig"),
    "report": ("pipelines.report", "ReportConfig"),
    "ls": ("pipelines.ls", "LsConfig"),
    "verify": ("pipelines.verify", "VerifyConfig"),
    "repair": ("pipelines.repair", "RepairConfig"),
    "train-demo-model": ("pipelines.train_demo_model", "TrainDemoModelConfig"),
}

# Options of a command that need none of the others: config classes of their own.
ALONE = {("attack", "--list"): ("pipelines.attack_list", "AttackListConfig")}

DESCRIPTION = """REGroup on Ray: a pre-trained classifier made robust at test time, and measured.

The flow: index-dataset -> extract -> build-bank -> attack -> evaluate -> rescore. Each command
does what is missing of the steps before it, keeps everything in --store, and does nothing twice.
Or all of it from one file: run STUDY.toml (docs/studies.md). Start with: regroup demo"""


def _config_class(command: str) -> type[Any]:
    module, name = COMMANDS[command]
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def command_of(config: object) -> str:
    """The command that `config` configures, or its class where it belongs to none."""
    kind = type(config).__name__
    return next((name for name, (_, cls) in COMMANDS.items() if cls == kind), kind)


def _terminate(number: int, frame: object) -> None:  # noqa: ARG001
    """SIGTERM, what `ray job stop` sends: unwind, so that workers end and files are closed."""
    sys.exit(128 + number)


def _execute(command: str, config: Any) -> int:
    """Run a job; its summary goes to standard output as JSON when asked. Returns the status."""
    module = type(config).__module__
    signal.signal(signal.SIGTERM, _terminate)
    try:
        summary = importlib.import_module(module).main(config)
    except (KeyboardInterrupt, SystemExit) as stop:
        terminated = isinstance(stop, SystemExit)
        print(
            f"regroup {command}: {'terminated' if terminated else 'interrupted'}: the blocks that "
            "were committed stay in the store; run the same command again to go on from there",
            file=sys.stderr,
        )
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if status is None:
            raise
        _print_summary(config, getattr(error, "summary", None))
        print(f"regroup {command}: {error}", file=sys.stderr)
        return int(status)
    _print_summary(config, summary)
    return 0


def _print_summary(config: Any, summary: Any) -> None:
    """Print what a job did, or found before it failed, where --json asks for it."""
    if getattr(config, "json", False) and summary is not None:
        print(json.dumps(summary, indent=2, default=str))


def run_command(command: str, args: list[str] | None = None) -> None:
    """Run one job as a program of its own (`python pipelines/<job>.py ...`)."""
    kind, prog = _config_class(command), f"regroup {command}"
    _run_alone(command, sys.argv[1:] if args is None else args)
    config = _parse(lambda: tyro.cli(kind, args=args, prog=prog))
    sys.exit(_execute(command, config))


def _run_alone(command: str, words: list[str]) -> None:
    """Where `words` hold an option that needs none of the others: do what it says, and exit."""
    for (name, option), (module, kind) in ALONE.items():
        if name == command and option in words:
            known = [word for word in words if word in (option, "--json", "--help")]
            found: type[Any] = getattr(importlib.import_module(module), kind)
            config = _parse(lambda: tyro.cli(found, args=known, prog=f"regroup {command}"))  # noqa: B023
            sys.exit(_execute(command, config))


def _parse(parse: Callable[[], Any]) -> Any:
    """What `parse` returns; a reader of the help that goes away (`| head`) is no error."""
    try:
        config = parse()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more as it exits: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    return config


def main(args: list[str] | None = None) -> None:
    """Entry point of the `regroup` command."""
    words = sys.argv[1:] if args is None else args
    if words:
        _run_alone(words[0], words[1:])
    configs = {command: _config_class(command) for command in COMMANDS}
    callables = cast("dict[str, Callable[..., Any]]", configs)
    config = _parse(
        lambda: tyro.extras.subcommand_cli_from_dict(
            callables, args=args, prog="regroup", description=DESCRIPTION
        )
    )
    command = next(name for name, kind in configs.items() if type(config) is kind)
    sys.exit(_execute(command, config))


if __name__ == "__main__":
    main()
