"""The command ``millstream``: one module of this folder for each subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from millstream import version
from millstream.cli import bench, bench_model, export, inspect, profile, run, run_model, warmup
from millstream.cli._command import Command

COMMANDS: list[Command] = [
    run.COMMAND,
    inspect.COMMAND,
    export.COMMAND,
    run_model.COMMAND,
    bench_model.COMMAND,
    bench.COMMAND,
    profile.COMMAND,
    warmup.COMMAND,
]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="millstream", description="PaddlePaddle Fluid programs on PyTorch.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    arguments = parser.parse_args(sys.argv[1:] if argv is None else argv)
    return int(arguments.run(arguments))


def _version() -> str:
    return f"millstream {version.millstream} (the interface of PaddlePaddle Fluid {version.full_version})"
