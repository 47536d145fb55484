"""Places as users give them."""

from __future__ import annotations

from typing import Any

from millstream.runtime.place import Place


def as_places(places: Any) -> list[Place]:
    """One place, a list of them, or None (an empty list), checked."""
    if places is None:
        return []
    found = list(places) if isinstance(places, (list, tuple)) else [places]
    for place in found:
        if not isinstance(place, Place):
            raise TypeError(f"places must be a Place or a list of them, received {type(place).__name__}: {place!r}")
    return found
