"""Where in the user's own code an Operator was made."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SKIP = ("<frozen", "<string>")


class Site(NamedTuple):
    """A line of user code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def user_site() -> Site | None:
    """The innermost frame outside this package (and outside contextlib), or None."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if not name.startswith(_PACKAGE) and not name.startswith(_SKIP) and not name.endswith("contextlib.py"):
            return Site(name, frame.f_lineno, code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None
