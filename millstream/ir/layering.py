"""Layered drawing of an acyclic graph of boxes: layers by longest path, order by barycentres, then coordinates.

Source of the method: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures",
IEEE Trans. SMC 11(2), 1981. Edges over several layers pass through empty places, one chain for all edges of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

GAP_X, GAP_Y = 18.0, 34.0
_CHAIN_WIDTH = 4.0
_SWEEPS = 6
MAX_CHAIN_PLACES = 20_000  # beyond these, long edges are drawn straight


@dataclass
class Box:
    """Something with a size; the layout sets `x` and `y`, its upper left corner."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    layer: int = 0
    place: bool = False
    above: list[Box] = field(default_factory=list, repr=False)
    below: list[Box] = field(default_factory=list, repr=False)

    @property
    def centre(self) -> float:
        return self.x + self.width / 2


@dataclass
class Edge:
    """From one box to a later one; `weak` edges hold the order of layers but pull nothing together."""

    source: int
    target: int
    weak: bool = False
    route: list[Box] = field(default_factory=list, repr=False)


def arrange(boxes: Sequence[Box], edges: Sequence[Edge]) -> tuple[float, float]:
    """Place `boxes` (every edge goes from a lower to a higher index); returns (width, height) of the drawing."""
    if not boxes:
        return 0.0, 0.0
    _assign_layers(boxes, edges)
    rows: list[list[Box]] = [[] for _ in range(1 + max(b.layer for b in boxes))]
    for box in boxes:
        rows[box.layer].append(box)
    _link(boxes, edges, rows)
    for sweep in range(_SWEEPS):
        _order(rows, down=sweep % 2 == 0)
    _set_x(rows)
    y = 0.0
    for row in rows:
        height = max(b.height for b in row)
        for box in row:
            if box.place:
                box.height = height  # an edge passes a whole layer straight down, beside its boxes
            box.y = y + (height - box.height) / 2
        y += height + GAP_Y
    left = min(b.x for row in rows for b in row)
    for row in rows:
        for box in row:
            box.x -= left
    return max(b.x + b.width for row in rows for b in row), y - GAP_Y


def _assign_layers(boxes: Sequence[Box], edges: Sequence[Edge]) -> None:
    into: list[list[int]] = [[] for _ in boxes]
    out: list[list[int]] = [[] for _ in boxes]
    for edge in edges:
        into[edge.target].append(edge.source)
        out[edge.source].append(edge.target)
    for i, box in enumerate(boxes):
        box.layer = 1 + max((boxes[s].layer for s in into[i]), default=-1)
    for i in range(len(boxes) - 1, -1, -1):  # what nothing leads to stands right above its first use
        if not into[i] and out[i]:
            boxes[i].layer = min(boxes[t].layer for t in out[i]) - 1
    used = sorted({box.layer for box in boxes})
    rank = {layer: n for n, layer in enumerate(used)}
    for box in boxes:
        box.layer = rank[box.layer]


def _link(boxes: Sequence[Box], edges: Sequence[Edge], rows: list[list[Box]]) -> None:
    """Join neighbours, with a chain of places for what spans more than one layer."""
    chains: dict[int, list[Box]] = {}
    places = 0
    for edge in edges:
        source, target = boxes[edge.source], boxes[edge.target]
        if edge.weak:
            continue
        chain = chains.setdefault(edge.source, [])
        steps = target.layer - source.layer - 1
        if places + steps - len(chain) > MAX_CHAIN_PLACES:
            continue
        while len(chain) < steps:
            place = Box(_CHAIN_WIDTH, 0.0, layer=source.layer + 1 + len(chain), place=True)
            _join(chain[-1] if chain else source, place)
            chain.append(place)
            rows[place.layer].append(place)
            places += 1
        edge.route = chain[:steps]
        _join(chain[steps - 1] if steps else source, target)


def _join(upper: Box, lower: Box) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _order(rows: list[list[Box]], down: bool) -> None:
    position: dict[int, float] = {}
    for row in rows:
        position.update((id(b), n) for n, b in enumerate(row))
    for row in rows if down else reversed(rows):

        def key(box: Box) -> float:
            near = box.above if down else box.below
            return sum(position[id(b)] for b in near) / len(near) if near else position[id(box)]

        row.sort(key=key)
        position.update((id(b), n) for n, b in enumerate(row))


def _set_x(rows: list[list[Box]]) -> None:
    """Move boxes towards the mean of their neighbours without overlap.

    Of two placements that keep the gaps, one pushed to the right and one to the left, the mean keeps them as well.
    """
    for row in rows:
        x = 0.0
        for box in row:
            box.x = x
            x += box.width + GAP_X
        for box in row:
            box.x -= x / 2
    for sweep in range(2 * _SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = []
            for box in row:
                near = box.above + box.below
                wish.append(sum(b.centre for b in near) / len(near) - box.width / 2 if near else box.x)
            right, left = list(wish), list(wish)
            for n in range(1, len(row)):
                right[n] = max(right[n], right[n - 1] + row[n - 1].width + GAP_X)
            for n in range(len(row) - 2, -1, -1):
                left[n] = min(left[n], left[n + 1] - row[n].width - GAP_X)
            for n, box in enumerate(row):
                box.x = (right[n] + left[n]) / 2
