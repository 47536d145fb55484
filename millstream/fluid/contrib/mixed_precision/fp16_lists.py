"""Which operators run in half precision: what the operators' declarations say (``amp=``), and a user's changes."""

from __future__ import annotations

from collections.abc import Iterable

from millstream.ops import REGISTRY


def declared(tag: str) -> set[str]:
    """Types of the operators that are declared with ``amp=tag``."""
    return {d.name for d in REGISTRY.declared() if d.extra.get("amp") == tag}


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


def _names(given: Iterable[str] | None, argument: str) -> set[str]:
    if given is None:
        return set()
    found = set() if isinstance(given, (str, bytes)) else set(given)
    if isinstance(given, (str, bytes)) or any(not isinstance(n, str) for n in found):
        raise TypeError(f"AutoMixedPrecisionLists: {argument} must be a list of names (str), received {given!r}")
    return found
