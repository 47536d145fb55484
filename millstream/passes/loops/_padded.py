"""Attention of a StaticRNN over padded rows: outer variables [batch, rows, width] as rows that each sequence keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from millstream.ir.operator import Operator
from millstream.ir.variable import Variable
from millstream.passes.loops._find import refuse_unless
from millstream.passes.loops._write import ACTS, BINARY, MEANS, Writer, _Made

LIFTED = "[batch, 1, width]"
ROWS = "[batch, rows, width]"
LINE = "[batch, rows]"
LIFTED_LINE = "[batch, 1, rows]"
SWAPPED = "[1, batch, rows]"  # on its way to a mask [batch, rows]
_RANK = {LIFTED: 3, ROWS: 3, LINE: 2, LIFTED_LINE: 3, SWAPPED: 3}


@dataclass
class _Padded:
    """Where a variable of more dims than a row stands; numbers of a line are rows of width 1 in their space."""

    value: int
    width: int
    space: int
    form: str


class PaddedWriter(Writer):
    """Writes what a step does with padded rows; all else is the Writer's.

    Attributes:
        outer: variables from outside of the loop and what they are called there; their form is known when they are read.
        padded: variables of the Block that have one of the forms.
    """

    def __init__(self, find: Callable[[str], Variable | None]) -> None:
        super().__init__(find)
        self.outer: dict[str, str] = {}
        self.padded: dict[str, _Padded] = {}
        self._weighted: dict[str, tuple[_Padded, _Padded]] = {}  # rows times a number each, not written yet
        self._shapes: dict[str, _Padded] = {}

    def write(self, op: Operator) -> None:
        known = (self.outer, self.padded, self._weighted, self._shapes)
        if any(n in of for n in op.input_arg_names for of in known) or self._lifts(op):
            method = getattr(self, "_padded_" + ("binary" if op.type in BINARY else op.type), None)
            if op.type in ACTS:
                x = self._read(op.input("X")[0])
                self._put(op, replace(x, value=self._step("act", [x.value], x.width, ACTS[op.type], space=x.space)))
            else:
                refuse_unless(method is not None, f"{op.type} works on padded rows and is not known to the row machine")
                assert method is not None
                method(op)
        else:
            super().write(op)

    def _lifts(self, op: Operator) -> bool:
        return op.type in ("unsqueeze2", "unsqueeze") and op.input("X")[0] in self.made

    # ---- reading and writing -----------------------------------------------------------------------
    def _read(self, name: str, space: int = 0, form: str = ROWS) -> _Padded:
        """The value of `name`; an outer variable becomes one of `form`, in `space` (0: in one of its own)."""
        if name in self._weighted:
            rows, numbers = self._weighted.pop(name)
            value = self._step("scale_rows", [rows.value, numbers.value], rows.width, space=rows.space)
            self.padded[name] = replace(rows, value=value)
        elif name in self.outer and name not in self.padded:
            self.padded[name] = self._outside(name, space, form)
        refuse_unless(name in self.padded, f"{name!r} is no padded row")
        found = self.padded[name]
        refuse_unless(not space or found.space in (0, space), f"{name!r} has the rows of another padded variable")
        return found

    def _outside(self, name: str, space: int, form: str) -> _Padded:
        var = self.find(name)
        dims = list(var.shape) if var is not None else []
        fits = len(dims) == _RANK[form] and (form != ROWS or dims[2] > 0) and (form != LIFTED_LINE or dims[1] == 1)
        refuse_unless(fits and form in (ROWS, LINE, LIFTED_LINE), f"{name!r} of shape {dims} is not {form}")
        width = dims[2] if form == ROWS else 1
        space = space or self._new_space(name)
        self.statics.append(self.outer[name])
        return _Padded(self._value("static", len(self.statics) - 1, width, space), width, space, form)

    def _put(self, op: Operator, made: _Padded, slot: str = "Out") -> None:
        name = op.output(slot)[0]
        var = self.find(name)
        refuse_unless(var is not None and len(var.shape) == _RANK[made.form], f"{name!r} is not {made.form}")
        self.padded[name] = made

    def _put_row(self, op: Operator, value: int, width: int) -> None:
        self._set(op, "Out", value, width)

    # ---- shapes ------------------------------------------------------------------------------------
    def _axis(self, op: Operator, x: _Padded | None, more: int) -> int:
        axes = op.attr("axes") or []
        refuse_unless(len(axes) == 1 and len(op.input_arg_names) == 1, f"{op.type} of several dims")
        return int(axes[0]) + (_RANK[x.form] if x is not None else 2) + more if axes[0] < 0 else int(axes[0])

    def _padded_unsqueeze2(self, op: Operator) -> None:
        name = op.input("X")[0]
        if name in self.made:
            x = self.made[name]
            refuse_unless(x.rank == 2 and not x.space and self._axis(op, None, 1) == 1, "unsqueeze of another dim")
            return self._put(op, _Padded(x.value, x.width, 0, LIFTED))
        line = self._read(name, form=LINE)
        axis = self._axis(op, line, 1)
        refuse_unless(line.form == LINE and axis in (1, 2), "unsqueeze of another dim")
        return self._put(op, replace(line, form=LIFTED_LINE if axis == 1 else ROWS))

    def _padded_squeeze2(self, op: Operator) -> None:
        x = self._read(op.input("X")[0])
        axis = self._axis(op, x, 0)
        if x.form == LIFTED and axis == 1:
            return self._put_row(op, x.value, x.width)
        line = (x.form == LIFTED_LINE and axis == 1) or (x.form == ROWS and x.width == 1 and axis == 2)
        refuse_unless(line, "squeeze of another dim")
        return self._put(op, replace(x, form=LINE))

    _padded_unsqueeze, _padded_squeeze = _padded_unsqueeze2, _padded_squeeze2

    def _padded_reshape2(self, op: Operator) -> None:
        x, shape = self._read(op.input("X")[0]), list(op.attr("shape") or [])
        row = x.form == LIFTED and shape in ([0, -1], [0, x.width], [-1, x.width])
        refuse_unless(row and len(op.input_arg_names) == 1, f"reshape of {x.form} to {shape}")
        self._put_row(op, x.value, x.width)

    _padded_reshape = _padded_reshape2

    def _padded_transpose2(self, op: Operator) -> None:
        x = self._read(op.input("X")[0])
        turned = {LIFTED_LINE: SWAPPED, SWAPPED: LIFTED_LINE}.get(x.form)
        refuse_unless(turned is not None and op.attr("axis") == [1, 0, 2], f"transpose of {x.form}")
        assert turned is not None
        self._put(op, replace(x, form=turned))

    _padded_transpose = _padded_transpose2

    def _padded_shape(self, op: Operator) -> None:
        x = self._read(op.input("Input")[0])
        refuse_unless(x.form == LIFTED, "the shape of padded rows")
        self._shapes[op.output("Out")[0]] = x

    def _padded_slice(self, op: Operator) -> None:
        name = op.input("Input")[0]
        one = name in self._shapes and op.attr("axes") == [0] and len(op.input_arg_names) == 1
        refuse_unless(one and (op.attr("starts"), op.attr("ends")) == ([1], [2]), "slice of padded rows")
        self.number(op.output("Out")[0], 1.0)  # [batch, 1, width]

    def _padded_expand(self, op: Operator) -> None:
        tensors = op.input("expand_times_tensor")
        times = [self._numbers.get(n) for n in tensors] if tensors else op.attr("expand_times")
        once = not op.input("ExpandTimes") and all(t == 1 for t in times)
        refuse_unless(once, "padded rows are repeated")
        self._put(op, self._read(op.input("X")[0]))

    def _padded_assign(self, op: Operator) -> None:
        self._put(op, self._read(op.input("X")[0]))

    # ---- arithmetic --------------------------------------------------------------------------------
    def _padded_scale(self, op: Operator) -> None:
        x = self._read(op.input("X")[0])
        refuse_unless(not op.input("ScaleTensor"), "scale by a tensor")
        factor, shift = op.attr("scale"), op.attr("bias")
        self._put(op, self._times(x, factor, shift if op.attr("bias_after_scale") else shift * factor))

    def _times(self, x: _Padded, factor: float, shift: float = 0.0) -> _Padded:
        return replace(x, value=self._step("scale", [x.value], x.width, factor, shift, space=x.space))

    def _padded_mul(self, op: Operator) -> None:
        x, weight = self._read(op.input("X")[0]), op.input("Y")[0]
        plain = op.attr("x_num_col_dims") == 2 and op.attr("y_num_col_dims") == 1 and x.form in (ROWS, LIFTED)
        refuse_unless(plain, "mul over other dims")
        value, width = self._product_of(_Made(x.value, x.width, x.space, 2), weight, "plain")
        self._put(op, replace(x, value=value, width=width))

    def _padded_binary(self, op: Operator) -> None:
        x_name, y_name, what = op.input("X")[0], op.input("Y")[0], BINARY[op.type]
        x, y = self._operands(x_name, y_name)
        number = self._numbers.get(y_name)
        if number is not None:
            refuse_unless(what != "div" or number, "a division by zero")
            parts = {"add": (1.0, number), "sub": (1.0, -number), "mul": (number, 0.0), "div": (1 / (number or 1), 0.0)}
            return self._put(op, self._times(x, *parts[what]))
        if y is None:
            line, _, columns = self._constant(y_name, "line")
            var = self.find(y_name)
            of_last = var is not None and list(var.shape) == [columns] and op.attr("axis") in (-1, _RANK[x.form] - 1)
            fits = of_last and columns == x.width and x.form in (ROWS, LIFTED) and what != "div"
            refuse_unless(fits, f"{y_name!r} is not a line of {x.form}")
            return self._put(op, replace(x, value=self._step(what, [x.value, line], x.width, space=x.space)))
        numbers = y.form == ROWS and y.width == 1 < x.width
        if what == "mul" and x.form == ROWS and (numbers or (y.form == LINE and op.attr("axis") == 0)):
            self._weighted[op.output("Out")[0]] = (x, y)
            return None
        value = y.value
        if x.form == ROWS and y.form == LIFTED:
            value = self._step("spread", [value], y.width, space=x.space)
        else:
            alike = x.form == y.form or (x.form == SWAPPED and y.form == LINE and op.attr("axis") in (-1, 1))
            refuse_unless(alike and x.space == y.space, f"{op.type} of {x.form} and {y.form}")
        refuse_unless(x.width == y.width, f"{op.type} of rows of {x.width} and {y.width}")
        return self._put(op, replace(x, value=self._step(what, [x.value, value], x.width, space=x.space)))

    def _operands(self, x_name: str, y_name: str) -> tuple[_Padded, _Padded | None]:
        """Both, an outer one in the rows and the form of the other."""
        dims = [list(v.shape) if (v := self.find(n)) is not None else [] for n in (x_name, y_name)]
        if y_name in self.padded or y_name in self._weighted:
            y = self._read(y_name)
            form = y.form if len(dims[0]) == len(dims[1]) and y.form != LIFTED else ROWS
            return self._read(x_name, y.space, form), y
        x = self._read(x_name)
        if y_name not in self.outer:
            refuse_unless(y_name not in self.made, f"{y_name!r} is no padded row")
            return x, None
        refuse_unless(x.form != LIFTED, f"{y_name!r} meets {x.form}")
        form = x.form if len(dims[0]) == len(dims[1]) else LINE
        rows = dims[0][1 if x.form == ROWS else -1], dims[1][1 if form == ROWS else -1]
        refuse_unless(rows[0] == rows[1], f"{y_name!r} has other rows than {x_name!r}")
        return x, self._read(y_name, x.space, form)

    def _padded_softmax(self, op: Operator) -> None:
        x, axis = self._read(op.input("X")[0]), op.attr("axis")
        along = (axis % _RANK[x.form]) == (1 if x.form == ROWS else _RANK[x.form] - 1)
        refuse_unless(along and x.width == 1 and x.form != LIFTED, f"softmax of {x.form} over dim {axis}")
        self._put(op, replace(x, value=self._step("part_softmax", [x.value], 1, space=x.space)))

    def _padded_matmul(self, op: Operator) -> None:
        refuse_unless(not op.attr("transpose_X"), "matmul with transpose_X")
        x, turned = self._read(op.input("X")[0]), op.attr("transpose_Y")
        refuse_unless(x.form == (LIFTED if turned else LIFTED_LINE), f"matmul of {x.form}")
        y = self._read(op.input("Y")[0], x.space, ROWS)
        refuse_unless(y.form == ROWS and (not turned or x.width == y.width), f"matmul of {x.form} with {y.form}")
        if turned:
            made = _Padded(self._step("kept_dot", [x.value, y.value], 1, space=y.space), 1, y.space, LIFTED_LINE)
        else:
            made = _Padded(self._step("kept_sum", [x.value, y.value], y.width), y.width, 0, LIFTED)
        self._put(op, made if op.attr("alpha") == 1 else self._times(made, op.attr("alpha")))

    def _padded_reduce_sum(self, op: Operator) -> None:
        name = op.input("X")[0]
        refuse_unless(op.attr("dim") in ([1], [-2]) and not op.attr("reduce_all"), "a sum over other dims")
        if name in self._weighted:
            rows, numbers = self._weighted[name]
            value, width = self._step("kept_sum", [numbers.value, rows.value], rows.width), rows.width
        else:
            x = self._read(name)
            refuse_unless(x.form == ROWS, f"a sum of {x.form}")
            value, width = self._step("gather", [x.value], x.width, MEANS["SUM"]), x.width
        if op.attr("keep_dim"):
            self._put(op, _Padded(value, width, 0, LIFTED))
        else:
            self._put_row(op, value, width)
