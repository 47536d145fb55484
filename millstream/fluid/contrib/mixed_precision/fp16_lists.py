"""Which operators run in half precision: what the operators' declarations say (``amp=``), and a user's changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.ir.types import VarType
from millstream.ops import REGISTRY


def declared(tag: str, kind: str = "amp") -> set[str]:
    """Types of the operators that are declared with ``amp=tag`` (or, with `kind`, ``amp_bfloat16=tag``)."""
    return {d.name for d in REGISTRY.declared() if d.extra.get(kind) == tag}


class AutoMixedPrecisionLists:
    """White: always in half precision; black: never; gray: as what they read was made. Others count as black.

    Args:
        custom_white_list, custom_black_list: operator types that join the one list and leave the others.
        custom_black_varnames: names of variables whose readers stay in float32.

    Raises ValueError when a type is in both lists.
    """

    def __init__(
        self,
        custom_white_list: Iterable[str] | None = None,
        custom_black_list: Iterable[str] | None = None,
        custom_black_varnames: Iterable[str] | None = None,
    ) -> None:
        white = _names(custom_white_list, "custom_white_list")
        black = _names(custom_black_list, "custom_black_list")
        if white & black:
            raise ValueError(
                "AutoMixedPrecisionLists: custom_white_list and custom_black_list both have "
                + ", ".join(sorted(white & black))
            )
        self._custom_white_list, self._custom_black_list = custom_white_list, custom_black_list
        self.white_list = (declared("white") | white) - black
        self.black_list = (declared("black") | black) - white
        self.gray_list = declared("gray") - white - black
        self.black_varnames = _names(custom_black_varnames, "custom_black_varnames")


def lowered(lists: Any, dtype: VarType) -> tuple[set[str], set[str]]:
    """(white, gray) types of operators for a half type, of the lists and of what they leave open.

    bfloat16 has float32's range, so exponentials, sums and normalisations may read and write it (they calculate in
    float32 inside); 1.8.5's lists, which are for float16, keep them out. What a user's own lists say stays.
    """
    white, gray = set(lists.white_list), set(lists.gray_list)
    if dtype is VarType.BF16:
        own = {n for given in (lists._custom_white_list, lists._custom_black_list) for n in given or ()}
        white |= declared("white", "amp_bfloat16") - own
        gray |= declared("gray", "amp_bfloat16") - own
    return white, gray


def _names(given: Iterable[str] | None, argument: str) -> set[str]:
    if given is None:
        return set()
    found = set() if isinstance(given, (str, bytes)) else set(given)
    if isinstance(given, (str, bytes)) or any(not isinstance(n, str) for n in found):
        raise TypeError(f"AutoMixedPrecisionLists: {argument} must be a list of names (str), received {given!r}")
    return found
