"""Places of a training step, forward and backward, that become one operator each way: what the passes for them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from millstream.ir.operator import Operator
from millstream.passes._rewrite import replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work


class Place(Protocol):
    """Positions of operators that become others, in order."""

    def forward(self) -> list[int]:
        """Those that compute."""

    def backward(self) -> list[int]:
        """Those that compute gradients."""


_P = TypeVar("_P", bound=Place)


def fuse_places(
    work: Work,
    name: str,
    find: Callable[[Work, Uses, int], _P | str | None],
    build: Callable[[Work, Uses, _P], Mapping[int, Operator]],
) -> int:
    """Replace the operators of places in the global Block of `work`.

    Args:
        name: the pass, for what is refused.
        find: the place whose operator stands at a position, or why that stays as it is, or None where there is none.
        build: what stands there instead, by position.

    Returns:
        How many places were replaced.
    """
    uses = work.uses(work.block)
    replaced: dict[int, Operator | None] = {}
    changes = 0
    for at, op in enumerate(uses.ops):
        place = find(work, uses, at)
        if place is not None and not isinstance(place, str) and not replaced.keys().isdisjoint(taken(place)):
            place = "it is part of another place"
        if isinstance(place, str):
            work.refuse(name, op, place)
        elif place is not None:
            replaced.update(dict.fromkeys(taken(place)))
            replaced.update(build(work, uses, place))
            changes += 1
    replace_all(work, replaced)
    return changes


def taken(place: Place) -> list[int]:
    """Positions of all operators of a place."""
    return [*place.forward(), *place.backward()]


def why_needed(uses: Uses, place: Place, inside: Iterable[str]) -> str | None:
    """Why the operators of a place, or the variables `inside` it, must exist; or None."""
    if any(uses.has_gradient(uses.ops[p]) for p in place.backward()):
        return "its gradient has a gradient"
    return uses.why_kept(inside, taken(place))
