"""What a subcommand of ``millstream`` is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """One subcommand; a module of this folder makes it, ``__init__`` lists it.

    Attributes:
        arguments: declares its arguments on a parser.
        run: takes the parsed arguments, returns the exit status.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
