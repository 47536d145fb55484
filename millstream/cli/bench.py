"""``millstream bench NAME …``: the benchmarks of a source checkout."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from millstream.cli._command import Command

_CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_MISSING = "millstream bench: the benchmarks stand in the source checkout (folder bench/), which this installation lacks\n"


def _bench() -> Any:
    """The module ``bench.__main__`` of the checkout, or None."""
    if not os.path.isfile(os.path.join(_CHECKOUT, "bench", "__main__.py")):
        return None
    if _CHECKOUT not in sys.path:
        sys.path.append(_CHECKOUT)
    return importlib.import_module("bench.__main__")


def _arguments(parser: argparse.ArgumentParser) -> None:
    bench = _bench()
    if bench is None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER)
    else:
        bench.declare(parser)


def _run(arguments: argparse.Namespace) -> int:
    """The exit status of the benchmarks: 1 when numbers differ or a peer fails, 2 for wrong arguments."""
    bench = _bench()
    if bench is None:
        sys.stderr.write(_MISSING)
        return 2
    return int(bench.run(arguments))


COMMAND = Command("bench", "time workloads here and under other frameworks", _arguments, _run)
