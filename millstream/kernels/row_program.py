"""What one step of a recurrent loop does, as instructions for kernels/row_machine.py, and the instructions of its gradient.

A :class:`RowProgram` is made of text (JSON), so that it can be an operator's attribute:

    values:   [kind, argument, width, space] each. Kinds: "step" (argument: which step input), "static" (which static input;
              its own space, or space 0 for one row a sequence), "init" ([which initial state, whether its rows are in the
              order of lengths, the longest first]), "line" (which constant, a vector), "matrix" ([which constant, form,
              rows]), "memory", "made", "view" ([whole, first column] of a made value).
    steps:    [name, inputs, output, parameters] each; see `_STEPS`.
    memories: [memory, what it becomes, value of kind init | number] each.
    outputs:  values that leave the loop, in space 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from millstream.kernels import row_machine as machine
from millstream.kernels.panels import padded

NONE = 0  # the value that is not there: instructions without a second operand name it


@dataclass
class Value:
    """A value of a step; see the module's text. `root` is the value in whose rows a view lies, `column` where."""

    kind: str
    argument: Any
    width: int
    space: int
    root: int = -1
    column: int = 0
    depth: int = 0  # of a matrix


@dataclass
class Recipe:
    """A constant's share of gradient, for all rows at once: "product" (left' right), "sum" of right, "dot" (of both)."""

    constant: int
    form: str
    kind: str
    left: int
    right: int
    depth: int = 0


@dataclass
class Tables:
    """What the machine must know of each value, as arrays; see row_machine.run.

    Attributes:
        shared: the value has no rows: a constant.
        room: numbers that a constant takes; of the others, those that a row takes (views: 0).
    """

    space: np.ndarray
    width: np.ndarray
    stride: np.ndarray
    per_row: np.ndarray
    view: np.ndarray
    shared: np.ndarray
    room: np.ndarray
    root: np.ndarray
    column: np.ndarray


@dataclass
class RowProgram:
    """Values and instructions, forward and (when `train`) backward.

    Attributes:
        kept: values that keep their rows of all steps; the others are overwritten by the next step.
        gradients: value -> value of its gradient.
    """

    values: list[Value]
    steps: list[list[Any]]
    memories: list[list[Any]]
    outputs: list[int]
    train: bool
    forward: list[list[int]] = field(default_factory=list)
    forward_numbers: list[tuple[float, float]] = field(default_factory=list)
    backward: list[list[int]] = field(default_factory=list)
    backward_numbers: list[tuple[float, float]] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    gradients: dict[int, int] = field(default_factory=dict)
    recipes: list[Recipe] = field(default_factory=list)
    transposed: dict[int, int] = field(default_factory=dict)  # matrix -> the matrix that carries gradients back

    @property
    def spaces(self) -> int:
        return 1 + max(v.space for v in self.values)

    def of_kind(self, kind: str) -> list[tuple[int, Value]]:
        return [(i, v) for i, v in enumerate(self.values) if v.kind == kind]

    def root(self, value: int) -> int:
        return self.values[value].root if self.values[value].kind == "view" else value

    @cached_property
    def forward_code(self) -> tuple[np.ndarray, np.ndarray]:
        return _arrays(self.forward, self.forward_numbers)

    @cached_property
    def backward_code(self) -> tuple[np.ndarray, np.ndarray]:
        return _arrays(self.backward, self.backward_numbers)

    def per_step(self, value: int) -> bool:
        """Whether each step has rows of its own for the value."""
        root = self.root(value)
        return root in self.kept or self.values[root].kind == "step"

    @cached_property
    def tables(self) -> Tables:
        """Arrays over the values; the program must be whole."""
        values, numbers = self.values, range(len(self.values))
        shared = np.array([v.kind in ("line", "matrix", "none") for v in values])
        view = np.array([v.kind == "view" for v in values])
        wide = np.array([0 if v.kind in ("line", "none") else stride(values[self.root(i)]) for i, v in enumerate(values)])
        rows = np.where(view, 0, wide)
        constant = [v.depth * padded(v.width) if v.kind == "matrix" else stride(v) for v in values]
        return Tables(
            space=np.array([v.space for v in values]),
            width=np.array([padded(v.width) if v.kind == "matrix" else v.width for v in values]),
            stride=wide,
            per_row=np.array([wide[i] if self.per_step(i) and not shared[i] else 0 for i in numbers]),
            view=view,
            shared=shared,
            room=np.where(shared, constant, rows),
            root=np.array([self.root(i) for i in numbers]),
            column=np.array([v.column for v in values]),
        )

    @cached_property
    def zeros(self) -> int:
        """Numbers of value 0: as many as the widest row."""
        return max([64, *(stride(v) for v in self.values)])

    @cached_property
    def multiplications(self) -> int:
        """Multiplications a row, about: to decide on threads."""
        return sum(
            self.values[ins[0]].width * self.values[out].width for name, ins, out, _ in self.steps if name == "product"
        )


def _arrays(code: list[list[int]], numbers: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array(code, dtype=np.int64).reshape(len(code), machine.FIELDS),
        np.array(numbers, dtype=np.float32).reshape(len(code), 2),
    )


@lru_cache(maxsize=256)
def compiled(text: str, train: bool) -> RowProgram:
    """The program that `text` describes, with its gradient's instructions when `train`."""
    read = json.loads(text)
    values = [Value("none", None, 0, 0)] + [Value(k, a, w, s) for k, a, w, s in read["values"]]
    for value in values:
        if value.kind == "view":
            value.root, value.column = value.argument
        elif value.kind == "matrix":
            value.depth = value.argument[2]
    program = RowProgram(values, read["steps"], read["memories"], read["outputs"], train)
    for memory, becomes, init in program.memories:
        first = init if isinstance(init, int) else NONE
        number = 0.0 if isinstance(init, int) else float(init)
        _emit(program, machine.REMEMBER, becomes, first, memory, numbers=(number, 0.0))
        program.kept.add(program.root(becomes))
    for name, ins, out, parameters in program.steps:
        _STEPS[name][0](program, ins, out, parameters)
    program.kept.update(program.root(v) for v in program.outputs)
    if train:
        _Backward(program).derive()
    return program


def _emit(
    program: RowProgram, what: int, a: int, b: int, out: int, extra: int = 0, numbers: tuple[float, float] = (0.0, 0.0)
) -> None:
    program.forward.append([what, a, b, out, 0, extra])
    program.forward_numbers.append(numbers)


# ---- steps forward -------------------------------------------------------------------------------
def _simple(code: int) -> Any:
    def emit(program: RowProgram, ins: list[int], out: int, parameters: list[Any]) -> None:
        _emit(program, code, ins[0], ins[1] if len(ins) > 1 else NONE, out, int(parameters[0]) if parameters else 0)

    return emit


def _product(program: RowProgram, ins: list[int], out: int, parameters: list[Any]) -> None:
    _emit(program, machine.PRODUCT, ins[0], ins[1], out, ins[2] if len(ins) > 2 else NONE)


def _scale(program: RowProgram, ins: list[int], out: int, parameters: list[Any]) -> None:
    _emit(program, machine.SCALE, ins[0], NONE, out, numbers=(parameters[0], parameters[1]))


def _spread(program: RowProgram, ins: list[int], out: int, parameters: list[Any]) -> None:
    _emit(program, machine.SPREAD, ins[0], NONE, out, numbers=(1.0, 0.0))


# ---- steps backward ------------------------------------------------------------------------------
class _Backward:
    """Derives the instructions of the gradient: steps in reverse, each adding to the gradients of its inputs."""

    def __init__(self, program: RowProgram) -> None:
        self.program = program
        self.written: set[int] = set()  # gradients (roots or whole views) that hold something in this step
        self.parts: dict[int, int] = {}  # view -> the view of its root's gradient
        self.reached = self._reached()

    def _reached(self) -> set[int]:
        """Values on which an output or a memory depends: only they get gradients."""
        program = self.program
        found = {program.root(v) for v in program.outputs} | {program.root(m[1]) for m in program.memories}
        for _name, ins, out, _p in reversed(program.steps):
            if program.root(out) in found:
                found.update(program.root(i) for i in ins)
        return found

    def derive(self) -> None:
        program = self.program
        for value in program.outputs:
            self.written.add(self.gradient(value))  # filled from outside
            program.kept.add(self.gradient(value))
        for i, of in enumerate(program.values[:]):
            if of.kind == "static":
                self.written.add(self.gradient(i))  # gathers over all steps
        moved = {m[0] for m in program.memories if self._used(m[0])}
        for memory, becomes, _init in program.memories:
            if memory in moved:
                target = self.gradient(becomes)
                self.emit(machine.CARRY, self.gradient(memory), NONE, target)
        for name, ins, out, parameters in reversed(program.steps):
            root = program.root(out)
            if root not in program.gradients or not self._has(out):
                continue
            _STEPS[name][1](self, ins, out, parameters)
        for memory in moved:
            if not self._has(memory):  # only its rows' shape was used
                self.emit(machine.ZERO, NONE, NONE, self.gradient(memory))
        for i, of in enumerate(program.values[:]):
            if of.kind == "step" and i in program.gradients:
                program.kept.add(program.gradients[i])
                if not self._has(i):
                    self.emit(machine.ZERO, NONE, NONE, program.gradients[i])

    def _used(self, value: int) -> bool:
        return any(self.program.root(i) == value for _n, ins, out, _p in self.program.steps for i in ins)

    def _has(self, value: int) -> bool:
        """Whether the value's gradient holds something yet; a root of which only views were written gets zeros there."""
        program = self.program
        root = program.root(value)
        return root in program.gradients and program.gradients[root] in self.written

    def gradient(self, value: int) -> int:
        """The value that holds the gradient of `value`."""
        program = self.program
        root = program.root(value)
        if root not in program.gradients:
            of = program.values[root]
            program.values.append(Value("gradient", root, of.width, of.space))
            program.gradients[root] = len(program.values) - 1
        whole = program.gradients[root]
        if value == root:
            return whole
        if value not in self.parts:
            of = program.values[value]
            program.values.append(Value("view", [whole, of.column], of.width, of.space, whole, of.column))
            self.parts[value] = len(program.values) - 1
        return self.parts[value]

    def emit(self, what: int, a: int, b: int, out: int, extra: int = 0, numbers: tuple[float, float] = (0.0, 0.0)) -> None:
        """Append an instruction that adds to gradient `out`, or sets it when it is the step's first."""
        program = self.program
        root = program.root(out)
        add = root in self.written
        if not add and root != out and what != machine.ZERO:
            self.emit(machine.ZERO, NONE, NONE, root)  # views of it follow
            add = True
        self.written.add(root)
        program.backward.append([what, a, b, out, int(add), extra])
        program.backward_numbers.append(numbers)

    def wants(self, value: int) -> bool:
        """Whether a gradient is computed for `value` inside the loop."""
        return self.program.values[value].kind not in ("line", "matrix", "none")

    def read(self, *values: int) -> None:
        """Note values that the gradient reads."""
        roots = {self.program.root(v) for v in values}
        self.program.kept.update(r for r in roots if self.program.values[r].kind in ("made", "memory", "step", "gradient"))

    def recipe(self, value: int, kind: str, left: int, right: int) -> None:
        """Note how the gradient of a constant follows from rows of all steps."""
        of = self.program.values[value]
        constant, form = (of.argument[0], of.argument[1]) if of.kind == "matrix" else (of.argument, "line")
        self.read(right, *([left] if kind != "sum" else []))
        self.program.recipes.append(Recipe(constant, form, kind, left, right, of.depth))

    def transposed(self, matrix: int) -> int:
        """The matrix that takes gradients back."""
        program = self.program
        if matrix not in program.transposed:
            of = program.values[matrix]
            which, form, depth = of.argument
            program.values.append(Value("matrix", [which, form + "'", of.width], depth, 0, depth=of.width))
            program.transposed[matrix] = len(program.values) - 1
        return program.transposed[matrix]


def _product_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    back.recipe(ins[1], "product", ins[0], g)
    if len(ins) > 2:
        back.recipe(ins[2], "sum", NONE, g)
    if back.wants(ins[0]):
        back.emit(machine.PRODUCT, g, back.transposed(ins[1]), back.gradient(ins[0]), NONE)


def _sum_back(sign: float) -> Any:
    def derive(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
        g = back.gradient(out)
        for value, factor in zip(ins, (1.0, sign)):
            if back.program.values[value].kind == "line":
                back.recipe(value, "sum" if factor > 0 else "minus", NONE, g)
            elif factor > 0:
                back.emit(machine.COPY, g, NONE, back.gradient(value))
            else:
                back.emit(machine.SCALE, g, NONE, back.gradient(value), numbers=(-1.0, 0.0))

    return derive


def _mul_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    for value, other in zip(ins, reversed(ins)):
        back.read(other)
        if back.program.values[value].kind == "line":
            back.recipe(value, "dot", other, g)
        else:
            back.emit(machine.MUL, g, other, back.gradient(value))


def _div_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    back.read(ins[1], out)
    back.emit(machine.DIV, g, ins[1], back.gradient(ins[0]))
    back.emit(machine.DIV_BACK, g, ins[1], back.gradient(ins[1]), out)


def _copy_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    back.emit(machine.COPY, back.gradient(out), NONE, back.gradient(ins[0]))


def _scale_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    back.emit(machine.SCALE, back.gradient(out), NONE, back.gradient(ins[0]), numbers=(parameters[0], 0.0))


def _act_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    back.read(out)
    back.emit(machine.ACT_BACK, back.gradient(out), out, back.gradient(ins[0]), int(parameters[0]))


def _scale_rows_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    back.read(*ins)
    if back.wants(ins[0]):
        back.emit(machine.SCALE_ROWS, g, ins[1], back.gradient(ins[0]))
    back.emit(machine.DOT_ROWS, g, ins[0], back.gradient(ins[1]))


def _dot_rows_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    """dot_rows: a row with a line; its gradient is the line, scaled."""
    g = back.gradient(out)
    back.recipe(ins[1], "product", ins[0], g)
    if back.wants(ins[0]):
        back.emit(machine.SCALE_ROWS, ins[1], g, back.gradient(ins[0]))


def _spread_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    back.emit(machine.GATHER, back.gradient(out), NONE, back.gradient(ins[0]), 0)


def _gather_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    mean = int(parameters[0]) if parameters else 0
    back.emit(machine.SPREAD, back.gradient(out), NONE, back.gradient(ins[0]), mean, (1.0, 0.0))


def _kept_dot_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    back.read(*ins)
    back.emit(machine.KEPT_SUM, g, ins[1], back.gradient(ins[0]))
    back.emit(machine.KEPT_OUTER, ins[0], g, back.gradient(ins[1]))


def _kept_sum_back(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
    g = back.gradient(out)
    back.read(*ins)
    back.emit(machine.KEPT_DOT, g, ins[1], back.gradient(ins[0]))
    back.emit(machine.KEPT_OUTER, g, ins[0], back.gradient(ins[1]))


def _softmax_back(code: int) -> Any:
    def derive(back: _Backward, ins: list[int], out: int, parameters: list[Any]) -> None:
        back.read(out)
        back.emit(code, back.gradient(out), out, back.gradient(ins[0]))

    return derive


_STEPS: dict[str, tuple[Any, Any]] = {
    "product": (_product, _product_back),  # row @ matrix [+ line]
    "add": (_simple(machine.ADD), _sum_back(1.0)),
    "sub": (_simple(machine.SUB), _sum_back(-1.0)),
    "mul": (_simple(machine.MUL), _mul_back),
    "div": (_simple(machine.DIV), _div_back),
    "copy": (_simple(machine.COPY), _copy_back),
    "scale": (_scale, _scale_back),  # row * p0 + p1
    "act": (_simple(machine.ACT), _act_back),  # p0: code of kernels/gates.py
    "scale_rows": (_simple(machine.SCALE_ROWS), _scale_rows_back),  # row * its one number
    "dot_rows": (_simple(machine.DOT_ROWS), _dot_rows_back),
    "spread": (_spread, _spread_back),  # a sequence's row to the rows it keeps
    "gather": (_simple(machine.GATHER), _gather_back),  # their sum; p0 1: mean, 2: over the root of their number
    "kept_dot": (_simple(machine.KEPT_DOT), _kept_dot_back),  # a sequence's row with each of the rows it keeps
    "kept_sum": (_simple(machine.KEPT_SUM), _kept_sum_back),  # those rows, each times a number, added up
    "softmax": (_simple(machine.SOFTMAX), _softmax_back(machine.SOFTMAX_BACK)),
    "part_softmax": (_simple(machine.PART_SOFTMAX), _softmax_back(machine.PART_SOFTMAX_BACK)),
}


def stride(value: Value) -> int:
    """Numbers between two rows of a value of its own."""
    return padded(max(value.width, 1))
