"""Runs the commands given on standard input, all in one Ray."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

from regroup_cluster.session import SessionConfig, ray_session
from regroup_pipelines.cli import main
from tests.kept_workers import kept_workers


def _run(arguments: list[str]) -> tuple[int, str, str]:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, out.getvalue(), err.getvalue()


def _serve() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may go between the answers
    with kept_workers(), ray_session(SessionConfig(None)):
        for line in sys.stdin:
            number, arguments = json.loads(line)
            print(json.dumps([number, *_run(arguments)]), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
