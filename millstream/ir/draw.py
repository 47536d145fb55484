"""A Program as a self-contained SVG picture: operators, what flows between them, parameters, sub-Blocks in frames."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from millstream.ir.layering import Box, Edge, arrange
from millstream.ir.operator import ROLE_BACKWARD, ROLE_LR_SCHED, ROLE_OPTIMIZE
from millstream.ir.printer import op_text
from millstream.ir.types import VarType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millstream.ir.block import Block
    from millstream.ir.operator import Operator
    from millstream.ir.program import Program
    from millstream.ir.variable import Variable

_MARGIN, _HEAD = 18.0, 24.0
_OP_HEIGHT, _LEAF_HEIGHT = 40.0, 24.0
_MAX_TEXT = 34
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_LEAF = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.STEP_SCOPES, VarType.RAW})
_HEAT = ((255, 255, 255), (255, 237, 160), (254, 178, 76), (240, 59, 32))
_STYLE = """
text { font-family: Helvetica, Arial, sans-serif; font-size: 12px; fill: #1f2933; }
.small { font-size: 10px; fill: #52606d; }
.type { font-weight: bold; }
.frame { fill: #ffffff; stroke: #9aa5b1; stroke-width: 1; }
.inner { fill: #f5f7fa; }
.op { stroke: #52606d; stroke-width: 1; }
.forward { fill: #d6e8fa; } .backward { fill: #fde3cf; } .optimize { fill: #d9f0dd; } .schedule { fill: #e9e4f5; }
.parameter { fill: #d2d6dc; stroke: #616e7c; } .data { fill: #ffffff; stroke: #2f855a; stroke-width: 1.5; }
.edge { fill: none; stroke: #7b8794; stroke-width: 1.2; }
.weak { stroke-dasharray: 3 3; stroke: #cbd2d9; }
.gone { fill: #f8c9c4; stroke: #b3261e; stroke-width: 2.5; } .new { fill: #bfe8c6; stroke: #1e7d34; stroke-width: 2.5; }
.changed { fill: #fdf0b5; stroke: #a67c00; stroke-width: 2.5; }
.hover { fill: none; stroke: #000000; stroke-opacity: 0; stroke-width: 9; }
g.flow:hover .edge { stroke: #c0392b; stroke-width: 2.4; }
"""


class Heat(NamedTuple):
    """How an operator's box is coloured and labelled by what it costs: `share` from 0 (white) to 1 (red)."""

    share: float
    label: str


def program_svg(
    program: Program,
    marks: Mapping[int, str] | None = None,
    parameters: bool = True,
    heat: Mapping[int, Heat] | None = None,
) -> str:
    """The SVG text of `program`.

    `marks` highlights operators: their ``id()`` -> "gone", "new" or "changed". Without `parameters`, stored variables
    stand in the operators' texts only, which keeps large networks narrow. `heat` (by ``id()`` too) replaces the colours
    of roles and the second line of boxes by costs; operators without one are white.

    Operators stand in layers, each below what it reads. Boxes are coloured by role (forward, backward, optimizer,
    learning rate); parameters and other stored variables are shaded pills, data white ones. Resting the mouse on an
    edge shows the variable with dtype, shape and slots, on an operator its full text and the line that made it.
    What only backward or optimizer operators read of stored variables is named in their texts and not drawn.
    """
    drawn: set[int] = set()
    pictures = []
    for block in program.blocks:
        if block.idx not in drawn:
            pictures.append(_Picture(block, drawn, _Look(marks or {}, parameters, heat)))
    width = max(p.width for p in pictures)
    legend = _legend() if heat is None else _heat_legend()
    height = _MARGIN + _HEAD + sum(p.height + _MARGIN for p in pictures)
    parts = []
    y = _MARGIN + _HEAD
    for picture in pictures:
        parts.append(picture.svg(_MARGIN, y))
        y += picture.height + _MARGIN
    width = max(width, 640.0) + 2 * _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<style>{_STYLE}</style>\n'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0.5 L8 4 L0 7.5 z" fill="#7b8794"/></marker></defs>\n'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>\n{legend}\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend() -> str:
    items = [("op forward", "forward"), ("op backward", "backward"), ("op optimize", "optimizer"),
             ("op schedule", "learning rate"), ("parameter", "parameter, stored"), ("data", "data")]  # fmt: skip
    parts, x = [], _MARGIN
    for style, text in items:
        round_ = 8 if style in ("parameter", "data") else 3
        parts.append(f'<rect class="{style}" x="{x:.0f}" y="12" width="18" height="16" rx="{round_}"/>')
        parts.append(f'<text class="small" x="{x + 23:.0f}" y="24">{text}</text>')
        x += 44 + 5.6 * len(text)
    return "".join(parts)


def heat_colour(share: float) -> str:
    """White over yellow and orange to red; small shares are spread by a square root, so that they can be told apart."""
    at = max(0.0, min(1.0, share)) ** 0.5 * (len(_HEAT) - 1)
    low = min(int(at), len(_HEAT) - 2)
    mixed = (round(a + (b - a) * (at - low)) for a, b in zip(_HEAT[low], _HEAT[low + 1]))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _heat_legend() -> str:
    parts = [f'<text class="small" x="{_MARGIN:.0f}" y="24">share of the time:</text>']
    for k, share in enumerate((0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)):
        x = _MARGIN + 96 + 62 * k
        parts.append(f'<rect class="op" style="fill: {heat_colour(share)}" x="{x:.0f}" y="12" width="18" height="16"/>')
        parts.append(f'<text class="small" x="{x + 23:.0f}" y="24">{100 * share:g} %</text>')
    return "".join(parts)


class _Look(NamedTuple):
    """What :func:`program_svg` was asked for."""

    marks: Mapping[int, str]
    parameters: bool
    heat: Mapping[int, Heat] | None


@dataclass
class _Node(Box):
    """A Box that knows what it shows: an operator (perhaps around pictures of its Blocks) or a variable."""

    op: Operator | None = None
    var: Variable | None = None
    name: str = ""
    style: str = ""
    heat: Heat | None = None
    inner: list[_Picture] = field(default_factory=list, repr=False)


@dataclass
class _Flow(Edge):
    """An Edge with the lines of its hover text."""

    lines: dict[str, None] = field(default_factory=dict)


class _Picture:
    """One Block, laid out: a frame of `width` x `height` with a heading."""

    def __init__(self, block: Block, drawn: set[int], look: _Look) -> None:
        drawn.add(block.idx)
        self.block = block
        self.look = look
        self.nodes: list[_Node] = []
        self.flows: list[_Flow] = []
        self.build(drawn)
        wide, high = arrange(self.nodes, self.flows)
        title = 7.0 * len(self.heading())
        self.width = max(wide, title) + 2 * _MARGIN
        self.height = high + _HEAD + 2 * _MARGIN
        shift = (self.width - wide) / 2
        places = {id(p): p for f in self.flows for p in f.route}
        for box in (*self.nodes, *places.values()):
            box.x += shift
            box.y += _HEAD + _MARGIN

    def heading(self) -> str:
        inside = f" in block {self.block.parent_idx}" if self.block.parent_idx >= 0 else ""
        return f"block {self.block.idx}{inside}: {len(self.block.ops)} operators"

    # ---- contents ----------------------------------------------------------------------------
    def build(self, drawn: set[int]) -> None:
        block = self.block
        leaves = self.leaves()
        at = {}
        for name in leaves:
            var = block._find_var_recursive(name)
            label = _short(_label(var, name))
            at[name] = len(self.nodes)
            self.nodes.append(_Node(_text_width(label) + 26, _LEAF_HEIGHT, var=var, name=name))
        flows: dict[tuple[int, int], _Flow] = {}
        for op in block.ops:
            index = len(self.nodes)
            self.nodes.append(_op_node(op, drawn, self.look))
            for slot, names in op.inputs.items():
                for name in names:
                    source = at.get(name)
                    if source is None or (name in leaves and leaves[name] is not None and op not in leaves[name]):
                        continue
                    flow = flows.get((source, index))
                    if flow is None:
                        flow = flows[source, index] = _Flow(source, index, weak=self.crosses(source, op))
                    var = block._find_var_recursive(name)
                    flow.lines[f"{var.describe() if var is not None else name} -> {op.type}.{slot}"] = None
            for name in op.output_arg_names:
                at[name] = index
                leaves.pop(name, None)
        self.flows = list(flows.values())

    def leaves(self) -> dict[str, list[Operator]]:
        """Variables read before this Block writes them, with the readers to draw an edge to."""
        written: set[str] = set()
        readers: dict[str, list[Operator]] = {}
        for op in self.block.ops:
            for name in op.input_arg_names:
                if name not in written:
                    readers.setdefault(name, []).append(op)
            written.update(op.output_arg_names)
        found: dict[str, list[Operator]] = {}
        for name, ops in readers.items():
            var = self.block._find_var_recursive(name)
            if name == "@EMPTY@" or (var is not None and var.type in _NO_LEAF):
                continue
            if var is not None and var.persistable and not self.look.parameters:
                continue
            near = [op for op in ops if not op.role & (ROLE_BACKWARD | ROLE_OPTIMIZE)]
            if near:
                found[name] = near
            elif var is None or not var.persistable:
                found[name] = ops
            elif all(op.role & ROLE_BACKWARD for op in ops):
                found[name] = ops[:1]
        return found

    def crosses(self, source: int, op: Operator) -> bool:
        """Whether an edge leads from one phase (forward, backward, …) into another."""
        maker = self.nodes[source].op
        return maker is not None and _phase(maker) != _phase(op)

    # ---- drawing -----------------------------------------------------------------------------
    def svg(self, x: float, y: float, inner: bool = False) -> str:
        style = "frame inner" if inner else "frame"
        parts = [
            f'<g transform="translate({x:.1f} {y:.1f})">',
            f'<rect class="{style}" width="{self.width:.1f}" height="{self.height:.1f}" rx="6"/>',
            f'<text x="{_MARGIN}" y="20" class="type">{_xml(self.heading())}</text>',
        ]
        inputs: dict[int, list[_Flow]] = {}
        for flow in self.flows:
            inputs.setdefault(flow.target, []).append(flow)
        ordered = sorted(self.flows, key=lambda f: not f.weak)
        ports = {}
        for target, flows in inputs.items():
            node = self.nodes[target]
            flows.sort(key=lambda f: (f.route[-1] if f.route else self.nodes[f.source]).centre)
            for n, flow in enumerate(flows):
                spread = min(node.width - 16, 26.0 * (len(flows) - 1))
                ports[id(flow)] = node.centre + (spread * (n / (len(flows) - 1) - 0.5) if len(flows) > 1 else 0.0)
        parts += [self.flow_svg(flow, ports[id(flow)]) for flow in ordered]
        parts += [_node_svg(node) for node in self.nodes]
        return "\n".join([*parts, "</g>"])

    def flow_svg(self, flow: _Flow, end_x: float) -> str:
        source, target = self.nodes[flow.source], self.nodes[flow.target]
        x0, y0 = source.centre, source.y + source.height
        path = f"M{x0:.1f} {y0:.1f}"
        stops = [(p.centre, p.y, p.y + p.height) for p in flow.route]
        for x1, y1, leave in [*stops, (end_x, target.y - 1, target.y - 1)]:
            bend = min(max((y1 - y0) / 2, 12.0), 60.0)
            path += f" C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
            if leave > y1:
                path += f" V{leave:.1f}"
            x0, y0 = x1, leave
        style = "edge weak" if flow.weak else "edge"
        title = _xml("\n".join(flow.lines))
        return (
            f'<g class="flow"><title>{title}</title><path class="{style}" d="{path}" marker-end="url(#arrow)"/>'
            f'<path class="hover" d="{path}"/></g>'
        )


def _xml(text: str) -> str:
    """`text` escaped; characters that XML can't hold become a mark."""
    return escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text))


def _phase(op: Operator) -> str:
    if op.role & ROLE_LR_SCHED:
        return "schedule"
    if op.role & ROLE_OPTIMIZE:
        return "optimize"
    return "backward" if op.role & ROLE_BACKWARD else "forward"


def _op_node(op: Operator, drawn: set[int], look: _Look) -> _Node:
    node = _Node(_text_width(op.type, 7.4) + 20, _OP_HEIGHT, op=op, style=look.marks.get(id(op), _phase(op)))
    if look.heat is not None:
        node.heat = look.heat.get(id(op), Heat(0.0, ""))
    node.width = max(node.width, _text_width(node.heat.label if node.heat else _result(op), 5.4) + 20)
    for block in op.sub_blocks():
        if block.idx not in drawn:
            node.inner.append(_Picture(block, drawn, look))
    if node.inner:
        node.width = max(node.width, max(p.width for p in node.inner) + 2 * _MARGIN)
        node.height += sum(p.height + _MARGIN for p in node.inner)
    return node


def _result(op: Operator) -> str:
    """The second line of an operator: its first output, or the Blocks it holds when they are drawn elsewhere."""
    names = op.output_arg_names
    if not names:
        return ""
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return _short(_label(op.block._find_var_recursive(names[0]), names[0])) + more


def _label(var: Variable | None, name: str) -> str:
    if var is None or not var.has_shape:
        return name
    return f"{name} [{', '.join(map(str, var.shape))}]"


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT // 2 - 1] + "…" + text[-_MAX_TEXT // 2 :]


def _text_width(text: str, per_letter: float = 6.4) -> float:
    return max(30.0, per_letter * len(text))


def _node_svg(node: _Node) -> str:
    x, y = node.x, node.y
    rect = f'x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{node.height:.1f}"'
    middle = f'x="{node.centre:.1f}" text-anchor="middle"'
    if node.op is None:
        var = node.var
        label = _short(_label(var, node.name))
        style = "parameter" if var is not None and var.persistable else "data"
        title = f"{node.name}: not declared in reach"
        if var is not None:
            title = f"{var.describe()} persistable={var.persistable} stop_gradient={var.stop_gradient}"
        return (
            f"<g><title>{_xml(title)}</title><rect class=\"{style}\" {rect} rx=\"12\"/>"
            f'<text {middle} y="{y + 16:.1f}">{_xml(label)}</text></g>'
        )
    op = node.op
    title = op_text(op) + (f"\nmade at {op.site}" if op.site is not None else "")
    second, fill = _result(op), ""
    if node.heat is not None:
        title = f"{node.heat.label}\n{title}"
        second, fill = node.heat.label, f' style="fill: {heat_colour(node.heat.share)}"'
    parts = [
        f'<g><title>{_xml(title)}</title><rect class="op {node.style}"{fill} {rect} rx="4"/>',
        f'<text class="type" {middle} y="{y + 17:.1f}">{_xml(op.type)}</text>',
        f'<text class="small" {middle} y="{y + 31:.1f}">{_xml(second)}</text></g>',
    ]
    at = y + _OP_HEIGHT
    for picture in node.inner:
        parts.append(picture.svg(x + (node.width - picture.width) / 2, at, inner=True))
        at += picture.height + _MARGIN
    return "".join(parts)
