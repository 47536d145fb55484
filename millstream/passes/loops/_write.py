"""From Fluid's operators to the steps of a row program (kernels/row_program.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.passes.loops._find import Refused, refuse_unless

_WHOLE = 16  # columns whose products fill vector registers of every kind
MEANS = {"SUM": 0, "AVERAGE": 1, "SQRT": 2}
ACTS = {"sigmoid": 1, "tanh": 2, "relu": 3}
BINARY = {"elementwise_add": "add", "elementwise_sub": "sub", "elementwise_mul": "mul", "elementwise_div": "div"}


@dataclass
class _Made:
    """Where a variable stands: its value, columns, space, and its number of dimensions."""

    value: int
    width: int
    space: int
    rank: int


class Writer:
    """Writes a row program. Variables that are not declared by `step`, `static` or `memory` are constants.

    Attributes:
        steps, statics, inits, consts: variables of the global Block, in the order of the operator's slots.
        outputs: variables that leave the loop.
    """

    def __init__(self, find: Callable[[str], Variable | None]) -> None:
        self.find = find
        self.values: list[list[Any]] = []
        self.code: list[list[Any]] = []
        self.memories: list[list[Any]] = []
        self.outs: list[int] = []
        self.steps: list[str] = []
        self.statics: list[str] = []
        self.inits: list[str] = []
        self.consts: list[str] = []
        self.outputs: list[str] = []
        self.widths: list[int] = []
        self.masks: dict[str, str] = {}  # result of a dropout -> the step input with its factors
        self.made: dict[str, _Made] = {}
        self._numbers: dict[str, float] = {}  # variables that hold one number everywhere
        self._spaces: dict[str, int] = {}
        self._constants: dict[tuple[str, str], int] = {}
        self._views: set[int] = set()

    # ---- what comes in and goes out ----------------------------------------------------------------
    def _width(self, name: str) -> tuple[int, int]:
        var = self.find(name)
        refuse_unless(
            var is not None and var.has_shape and var.dtype == VarType.FP32, f"{name!r} is not float32 of a known shape"
        )
        assert var is not None
        dims = list(var.shape[1:])
        refuse_unless(len(dims) <= 1 and all(d > 0 for d in dims), f"{name!r} has shape {list(var.shape)}, not rows")
        return (dims[0] if dims else 1), len(var.shape)

    def step(self, name: str, source: str) -> None:
        """`name` is a row of the sequences `source`."""
        width, rank = self._width(name)
        self.steps.append(source)
        self.made[name] = _Made(self._value("step", len(self.steps) - 1, width, 0), width, 0, rank)

    def static(self, name: str, source: str, lod: str | None) -> None:
        """`name` are the rows of `source` that each sequence keeps: those of the LoD that `lod` names, or (None) one."""
        width, rank = self._width(name)
        space = 0 if lod is None else self._new_space(lod)
        self.statics.append(source)
        self.made[name] = _Made(self._value("static", len(self.statics) - 1, width, space), width, space, rank)

    def _new_space(self, of: str) -> int:
        return self._spaces.setdefault(of, len(self._spaces) + 1)

    def memory(self, name: str, init: str | float, ranked: bool) -> None:
        width, rank = self._width(name)
        memory = self._value("memory", None, width, 0)
        first: int | float = float(init) if isinstance(init, float) else 0
        if isinstance(init, str):
            self.inits.append(init)
            first = self._value("init", [len(self.inits) - 1, ranked], width, 0)
        self.made[name] = _Made(memory, width, 0, rank)
        self.memories.append([memory, None, first])

    def becomes(self, name: str, update: str) -> None:
        """Close the memory `name`: the next step's value is `update`."""
        entry = next(m for m in self.memories if m[0] == self.made[name].value)
        at = self._get(update)
        refuse_unless((at.width, at.space) == (self.made[name].width, 0), f"state {name!r} changes its width")
        entry[1] = self._own(at)

    def output(self, name: str) -> None:
        at = self._get(name)
        refuse_unless(at.space == 0, f"{name!r} leaves the loop and has rows of its own")
        value = self._own(at)
        self.outs.append(self._step("copy", [value], at.width) if value in self.outs else value)
        self.outputs.append(name)
        self.widths.append(at.width)

    def _own(self, at: _Made) -> int:
        """A made value of its own (states and outputs are neither views nor somebody else's)."""
        made = self.values[at.value - 1][0] == "made" and at.value not in self._views
        return at.value if made else self._step("copy", [at.value], at.width)

    def text(self) -> str:
        return json.dumps({"values": self.values, "steps": self.code, "memories": self.memories, "outputs": self.outs})

    # ---- values ------------------------------------------------------------------------------------
    def _value(self, kind: str, argument: Any, width: int, space: int) -> int:
        self.values.append([kind, argument, width, space])
        return len(self.values)

    def _step(self, name: str, ins: list[int], width: int, *parameters: Any, space: int = 0, out: int | None = None) -> int:
        out = self._value("made", None, width, space) if out is None else out
        self.code.append([name, ins, out, list(parameters)])
        return out

    def _view(self, at: _Made, column: int, width: int) -> int:
        whole, first = at.value, column
        kind, argument = self.values[whole - 1][:2]
        if kind == "view":
            whole, first = argument[0], argument[1] + column
        elif kind != "made":
            whole = self._step("copy", [whole], at.width, space=at.space)
        view = self._value("view", [whole, first], width, at.space)
        self._views.add(view)
        return view

    def _get(self, name: str) -> _Made:
        refuse_unless(name in self.made, f"{name!r} is no row of the loop")
        return self.made[name]

    def _set(self, op: Operator, slot: str, value: int, width: int, space: int = 0) -> None:
        name = op.output(slot)[0]
        if name == EMPTY_VAR:
            return
        declared, rank = self._width(name)
        refuse_unless(declared == width, f"{op.type} spreads rows of {width} to {declared}")
        self.made[name] = _Made(value, width, space, rank)

    def _constant(self, name: str, form: str) -> tuple[int, int, int]:
        """(value, rows, columns) of a constant: a line when form is "line"."""
        var = self.find(name)
        known = var is not None and var.has_shape and all(d > 0 for d in var.shape) and var.dtype == VarType.FP32
        refuse_unless(known and name not in self.made, f"{name!r} is not a constant of known shape")
        assert var is not None
        dims = list(var.shape)
        if form == "line":
            refuse_unless(sum(d > 1 for d in dims) <= 1, f"{name!r} of shape {dims} is not one line")
            rows, columns = 1, max(dims)
        else:
            refuse_unless(len(dims) == 2, f"{name!r} of shape {dims} is not a matrix")
            rows, columns = {
                "transposed": (dims[1], dims[0]), "gates": (dims[0], 2 * dims[0]), "candidate": (dims[0], dims[0]),
            }.get(form, (dims[0], dims[1]))  # fmt: skip
        if (name, form) not in self._constants:
            if name not in self.consts:
                self.consts.append(name)
            at = self.consts.index(name)
            made = (
                self._value("line", at, columns, 0)
                if form == "line"
                else self._value("matrix", [at, form, rows], columns, 0)
            )
            self._constants[name, form] = made
        return self._constants[name, form], rows, columns

    # ---- operators ---------------------------------------------------------------------------------
    def write(self, op: Operator) -> None:
        """Append the steps of `op`; Refused when there are none for it."""
        if op.type in ACTS:
            x = self._get(op.input("X")[0])
            self._set(op, "Out", self._step("act", [x.value], x.width, ACTS[op.type], space=x.space), x.width, x.space)
        elif op.type in BINARY:
            self._binary(op)
        else:
            method = getattr(self, "_" + op.type, None)
            if method is None:
                raise Refused(f"{op.type} works on a state and is not known to the row machine")
            method(op)

    def _product_of(self, x: _Made, weight: str, form: str, bias: str | None = None) -> tuple[int, int]:
        _, rows, columns = self._constant(weight, form)
        refuse_unless(rows == x.width and x.rank == 2, f"{weight!r} does not fit rows of {x.width}")
        kind = self.values[x.value - 1][0]
        refuse_unless(kind in ("made", "memory", "step", "view"), f"{weight!r} is multiplied by what does not change")
        value = x.value
        if kind == "view" and x.width % _WHOLE:
            value = self._step("copy", [value], x.width, space=x.space)
        if columns == 1 and form != "gates" and bias is None:
            line, _, _ = self._constant(weight, "line")
            return self._step("dot_rows", [value, line], 1, space=x.space), 1
        ins = [value, self._constant(weight, form)[0]]
        if bias is not None:
            ins.append(self._constant(bias, "line")[0])
        return self._step("product", ins, columns, space=x.space), columns

    def _mul(self, op: Operator) -> None:
        refuse_unless(op.attr("x_num_col_dims") == 1 and op.attr("y_num_col_dims") == 1, "mul over more dimensions")
        x = self._get(op.input("X")[0])
        self._set(op, "Out", *self._product_of(x, op.input("Y")[0], "plain"), x.space)

    def _matmul(self, op: Operator) -> None:
        refuse_unless(not op.attr("transpose_X") and op.attr("alpha") == 1, "matmul with transpose_X or alpha")
        x = self._get(op.input("X")[0])
        form = "transposed" if op.attr("transpose_Y") else "plain"
        self._set(op, "Out", *self._product_of(x, op.input("Y")[0], form), x.space)

    def _binary(self, op: Operator) -> None:
        x_name, y_name, what = op.input("X")[0], op.input("Y")[0], BINARY[op.type]
        number = self._numbers.get(y_name)
        if number is not None and x_name in self.made:
            x = self._get(x_name)
            factor, shift = {
                "add": (1.0, number), "sub": (1.0, -number), "mul": (number, 0.0), "div": (1 / (number or 1), 0.0),
            }[what]  # fmt: skip
            refuse_unless(what != "div" or number, "a division by zero")
            return self._scaled(op, x, factor, shift)
        first = self._numbers.get(x_name)
        if first is not None and y_name in self.made and what != "div":
            y = self._get(y_name)
            factor, shift = {"add": (1.0, first), "sub": (-1.0, first), "mul": (first, 0.0)}[what]
            return self._scaled(op, y, factor, shift)
        x = self._get(x_name)
        if y_name not in self.made:
            refuse_unless(what != "div", "a division by a constant")
            line, _, columns = self._constant(y_name, "line")
            var = self.find(y_name)
            dims = list(var.shape) if var is not None else []
            refuse_unless(
                columns == x.width and dims[-1] == columns and op.attr("axis") != 0, f"{y_name!r} is not a line of it"
            )
            value = self._step(what, [x.value, line], x.width, space=x.space)
            return self._set(op, "Out", value, x.width, x.space)
        y = self._get(y_name)
        refuse_unless(x.space == y.space, "it mixes rows of the loop with rows of a sequence")
        if what == "mul" and y.width == 1 and x.width > 1 and (y.rank == 2 or op.attr("axis") == 0):
            value = self._step("scale_rows", [x.value, y.value], x.width, space=x.space)
        else:
            refuse_unless(x.width == y.width and x.rank == y.rank, f"{op.type} of rows of {x.width} and {y.width}")
            value = self._step(what, [x.value, y.value], x.width, space=x.space)
        return self._set(op, "Out", value, x.width, x.space)

    def _scaled(self, op: Operator, x: _Made, factor: float, shift: float) -> None:
        value = self._step("scale", [x.value], x.width, factor, shift, space=x.space)
        self._set(op, "Out", value, x.width, x.space)

    def _scale(self, op: Operator) -> None:
        refuse_unless(not op.input("ScaleTensor"), "scale by a tensor")
        factor, shift = op.attr("scale"), op.attr("bias")
        shift = shift if op.attr("bias_after_scale") else shift * factor
        self._scaled(op, self._get(op.input("X")[0]), factor, shift)

    def _assign(self, op: Operator) -> None:
        self.made[op.output("Out")[0]] = self._get(op.input("X")[0])

    _rnn_memory_helper = _assign

    def _sum(self, op: Operator) -> None:
        terms = [self._get(n) for n in op.input("X")]
        x = terms[0]
        refuse_unless(all((t.width, t.space) == (x.width, x.space) for t in terms), "a sum of different rows")
        value = x.value if len(terms) > 1 else self._step("copy", [x.value], x.width, space=x.space)
        for term in terms[1:]:
            value = self._step("add", [value, term.value], x.width, space=x.space)
        self._set(op, "Out", value, x.width, x.space)

    def _concat(self, op: Operator) -> None:
        parts = [self._get(n) for n in op.input("X")]
        refuse_unless(op.attr("axis") in (1, -1) and not op.input("AxisTensor"), "concat along the rows")
        refuse_unless(len({p.space for p in parts}) == 1 and all(p.rank == 2 for p in parts), "concat of different rows")
        space, width = parts[0].space, sum(p.width for p in parts)
        whole = self._value("made", None, width, space)
        column = 0
        for part in parts:
            view = self._value("view", [whole, column], part.width, space)
            self._views.add(view)
            self._step("copy", [part.value], part.width, space=space, out=view)
            column += part.width
        self._set(op, "Out", whole, width, space)

    def _split(self, op: Operator) -> None:
        x, outs = self._get(op.input("X")[0]), op.output("Out")
        refuse_unless(op.attr("axis") in (1, -1) and x.rank == 2 and len(op.input_arg_names) == 1, "split along the rows")
        sections = list(op.attr("sections") or []) or [x.width // len(outs)] * len(outs)
        refuse_unless(all(s > 0 for s in sections) and sum(sections) == x.width, "split into unknown parts")
        self._columns(x, sections, outs)

    def _columns(self, x: _Made, sections: list[int], outs: list[str]) -> None:
        column = 0
        for name, width in zip(outs, sections):
            self.made[name] = _Made(self._view(x, column, width), width, x.space, 2)
            column += width

    def _slice(self, op: Operator) -> None:
        x = self._get(op.input("Input")[0])
        plain = op.attr("axes") == [1] and len(op.input_arg_names) == 1 and not op.attr("decrease_axis") and x.rank == 2
        refuse_unless(plain, "slice of other dimensions than the columns")
        start, end = (v + x.width if v < 0 else min(v, x.width) for v in (op.attr("starts")[0], op.attr("ends")[0]))
        refuse_unless(0 <= start < end, "an empty slice")
        self.made[op.output("Out")[0]] = _Made(self._view(x, start, end - start), end - start, x.space, 2)

    def _reshape2(self, op: Operator) -> None:
        x = self._get(op.input("X")[0])
        name = op.output("Out")[0]
        width, rank = self._width(name)
        shape = list(op.attr("shape") or [])
        rows_stay = bool(shape) and shape[0] in (-1, 0) and width == x.width and len(op.input_arg_names) == 1
        refuse_unless(rows_stay and (len(shape) > 1 or x.width == 1), f"reshape of rows of {x.width} to {shape}")
        self.made[name] = _Made(x.value, width, x.space, rank)

    _reshape = _reshape2

    def _dropout(self, op: Operator) -> None:
        """In training `masks` holds factors that were drawn for all steps."""
        x = self._get(op.input("X")[0])
        if not op.attr("is_test"):
            mask = self._get(self.masks[op.output("Out")[0]])
            value = self._step("mul", [x.value, mask.value], x.width)
            return self._set(op, "Out", value, x.width)
        kept = 1.0 - op.attr("dropout_prob") if op.attr("dropout_implementation") == "downgrade_in_infer" else 1.0
        return self._scaled(op, x, kept, 0.0)

    def _softmax(self, op: Operator) -> None:
        x = self._get(op.input("X")[0])
        refuse_unless(op.attr("axis") in (1, -1) and x.rank == 2, "softmax along the rows")
        self._set(op, "Out", self._step("softmax", [x.value], x.width, space=x.space), x.width, x.space)

    def _fill_constant(self, op: Operator) -> None:
        refuse_unless(not op.input_arg_names and all(d == 1 for d in op.attr("shape")), "a constant of several numbers")
        text = op.attr("str_value")
        self._numbers[op.output("Out")[0]] = float(text) if text else float(op.attr("value"))

    def number(self, name: str, value: float) -> None:
        """`name` of the global Block holds one number."""
        self._numbers[name] = value

    def _fill_constant_batch_size_like(self, op: Operator) -> None:
        self._numbers[op.output("Out")[0]] = float(op.attr("value"))

    # ---- recurrent units ---------------------------------------------------------------------------
    def _lstm_unit(self, op: Operator) -> None:
        x, before = self._get(op.input("X")[0]), self._get(op.input("C_prev")[0])
        d = before.width
        refuse_unless(x.width == 4 * d and x.space == before.space == 0, "lstm_unit of other widths")
        enter, forget, leave, new = (self._view(x, k * d, d) for k in range(4))
        if op.attr("forget_bias"):
            forget = self._step("scale", [forget], d, 1.0, op.attr("forget_bias"))
        enter, forget, leave = (self._step("act", [v], d, 1) for v in (enter, forget, leave))
        kept = self._step("mul", [forget, before.value], d)
        cell = self._step("add", [kept, self._step("mul", [enter, self._step("act", [new], d, 2)], d)], d)
        hidden = self._step("mul", [leave, self._step("act", [cell], d, 2)], d)
        self._set(op, "C", cell, d)
        self._set(op, "H", hidden, d)

    def _gru_unit(self, op: Operator) -> None:
        x, before = self._get(op.input("Input")[0]), self._get(op.input("HiddenPrev")[0])
        d, weight = before.width, op.input("Weight")[0]
        refuse_unless(x.width == 3 * d and x.space == before.space == 0, "gru_unit of other widths")
        if op.input("Bias"):
            line, _, _ = self._constant(op.input("Bias")[0], "line")
            x = _Made(self._step("add", [x.value, line], 3 * d), 3 * d, 0, 2)
        gates, _ = self._product_of(before, weight, "gates")
        gates = self._step("add", [gates, self._view(x, 0, 2 * d)], 2 * d)
        gates = self._step("act", [gates], 2 * d, op.attr("gate_activation"))
        whole = _Made(gates, 2 * d, 0, 2)
        update, reset = self._view(whole, 0, d), self._view(whole, d, d)
        late = _Made(self._step("mul", [reset, before.value], d), d, 0, 2)
        new, _ = self._product_of(late, weight, "candidate")
        new = self._step("act", [self._step("add", [new, self._view(x, 2 * d, d)], d)], d, op.attr("activation"))
        one, other = (new, before.value) if op.attr("origin_mode") else (before.value, new)
        mixed = self._step("mul", [update, self._step("sub", [other, one], d)], d)
        self._set(op, "Hidden", self._step("add", [one, mixed], d), d)

    # ---- rows that each sequence keeps -------------------------------------------------------------
    def _sequence_expand(self, op: Operator) -> None:
        x, y = self._get(op.input("X")[0]), self._get(op.input("Y")[0])
        refuse_unless(x.space == 0 and y.space > 0 and op.attr("ref_level") in (-1, 0), "sequence_expand of other rows")
        self._set(op, "Out", self._step("spread", [x.value], x.width, space=y.space), x.width, y.space)

    def _sequence_softmax(self, op: Operator) -> None:
        x = self._get(op.input("X")[0])
        refuse_unless(x.space > 0 and x.width == 1, "sequence_softmax of other rows than a sequence keeps")
        self._set(op, "Out", self._step("part_softmax", [x.value], 1, space=x.space), 1, x.space)

    def _sequence_pool(self, op: Operator) -> None:
        x, kind = self._get(op.input("X")[0]), op.attr("pooltype")
        refuse_unless(x.space > 0 and kind in MEANS and not op.attr("pad_value"), f"sequence_pool {kind}")
        self._set(op, "Out", self._step("gather", [x.value], x.width, MEANS[kind]), x.width)
