"""``millstream profile script.py`` runs a Fluid program with the profiler on and writes the report."""

from __future__ import annotations

import argparse
import os
import sys

from millstream.cli import run
from millstream.cli._command import Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "millstream profile [-h] [--out FILE] [--sort KEY] (script.py | -m module) [arguments of the program ...]"
    parser.add_argument(
        "--out", metavar="FILE", default="profile.html",
        help="an HTML report, or with another ending a trace for chrome://tracing (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sort", default="total", choices=("default", "calls", "total", "max", "min", "ave"), help="order of the table"
    )
    run.COMMAND.arguments(parser)
    parser.usage = parser.usage.replace("millstream run [-h]", "millstream profile [-h] [--out FILE] [--sort KEY]")


def _run(arguments: argparse.Namespace) -> int:
    """The program's exit status; the table and the report are written also when it fails."""
    from millstream.fluid import profiler

    profiler.start_profiler("CPU", "OpDetail")
    try:
        return run.COMMAND.run(arguments)
    finally:
        profiler.stop_profiler(arguments.sort, arguments.out)
        sys.stdout.write(f"{os.path.abspath(arguments.out)}\n")


COMMAND = Command("profile", "run a Fluid program with the profiler on: a table and an HTML report", _arguments, _run)
