"""Control flow: while as Loop, conditional_block as If, recurrent as Scan; arrays of tensors as sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from millstream.ir import walk
from millstream.ir.types import VarType
from millstream.onnx.writer.emission import Emission, Env, RefusedError, emits, numpy_dtype
from millstream.onnx.writer.graph import Graph, Value


def _written(e: Emission) -> list[str]:
    """Variables around the sub-Block that it writes, those among the operator's outputs too."""
    block = e.op._block_attr("sub_block")
    found = dict.fromkeys(walk.outer_writes(block))
    for slot in ("Out", "outputs"):
        for name in e.op.outputs.get(slot, ()):
            if name in block.vars or e.op.block._find_var_recursive(name) is None:
                continue
            found[name] = None
    return [n for n in found if e.op.block._find_var_recursive(n) is not None]


def _empty(e: Emission, name: str) -> Value:
    """What stands for a variable that has no value yet: no elements, of its type and rank."""
    var = e.op.block._find_var_recursive(name)
    if var is None or var.type not in (VarType.LOD_TENSOR, VarType.LOD_TENSOR_ARRAY):
        raise RefusedError(f"variable {name!r} is no tensor")
    kind = numpy_dtype(var.dtype)
    if var.type is VarType.LOD_TENSOR_ARRAY:
        return empty_sequence(e.g, kind)
    dims = [d if d > 0 else 0 for d in var.shape] or [0]
    if 0 not in dims:
        dims[0] = 0
    return e.g.const(np.zeros(dims, kind))


def empty_sequence(g: Graph, kind: Any) -> Value:
    """An array without elements."""
    from millstream.onnx._require import onnx_package

    number = onnx_package().helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    made = g.ops("SequenceEmpty", 1, dtypes=[kind], dtype=int(number))[0]
    made.sort = "sequence"
    return made


class _Carried:
    """The variables that a body takes in and gives back, each with its offsets."""

    def __init__(self, e: Emission, names: list[str]) -> None:
        self.e = e
        self.names = names
        self.first: list[Value] = []
        self.levels: list[int] = []
        for name in names:
            value = e.env.find(name)
            self.first.append(value if value is not None else _empty(e, name))
            lod = e.env.lod(name)
            var = e.op.block._find_var_recursive(name)
            if value is None and var is not None and var.type is VarType.LOD_TENSOR and var.lod_level:
                lod = (e.g.const([0], np.int64),) * var.lod_level
            self.levels.append(len(lod))
            self.first.extend(lod)

    def bind(self, env: Env, values: Sequence[Value], declared: bool = True) -> None:
        """The variables are these values (in the order of `first`)."""
        given = iter(values)
        for name, levels in zip(self.names, self.levels):
            value = next(given)
            var = self.e.op.block._find_var_recursive(name)
            if declared and value.sort == "tensor" and value.shape is None and var is not None and var.has_shape:
                value.shape = tuple(d if d > 0 else -1 for d in var.shape)
            env.bind(name, value, [next(given) for _ in range(levels)])

    def now(self, graph: Graph, env: Env) -> list[Value]:
        """The values after a body, as values of its own."""
        found = []
        like = iter(self.first)
        for name, levels in zip(self.names, self.levels):
            value, lod, was = env.find(name), env.lod(name), next(like)
            for _ in range(levels):
                next(like)
            assert value is not None
            if len(lod) != levels:
                raise RefusedError(f"variable {name!r} has {levels} LoD levels before the block and {len(lod)} after it")
            if value.sort == "tensor":
                value = graph.cast(value, was.dtype)
            found += [graph.identity(v) for v in (value, *lod)]
        return found

    def grown(self, env: Env) -> bool:
        """Whether arrays that were empty before the body now hold tensors with LoD; they then come in with offsets."""
        found = False
        for name, levels in zip(self.names, self.levels):
            value = env.find(name)
            if value is not None and value.sort == "sequence" and not levels and self.e.env.find(name) is None:
                depth = len(env.lod(name))
                if depth:
                    found = True
                    self.e.env.bind(name, _empty(self.e, name), [empty_sequence(self.e.g, np.int64) for _ in range(depth)])
        return found


def _scalar(g: Graph, x: Value) -> Value:
    return g.reshape(g.cast(x, np.bool_))


@emits("while")
def while_(e: Emission) -> None:
    g, block = e.g, e.op._block_attr("sub_block")
    g.hint = g.fresh("while")
    condition = e.op.input("Condition")[0]
    names = [n for n in _written(e) if n != condition]
    carried = _Carried(e, names)
    start = e._value(condition, "Condition")
    with g.child() as body:
        body.hint = g.hint
        count = body.input(g.hint + ".count", np.int64, [])
        going = body.input(g.hint + ".going", np.bool_, [])
        inputs = [body.input(v.name + ".in", v.dtype, None, v.sort) for v in carried.first]
        env = Env(e.env)
        carried.bind(env, inputs)
        env.bind(condition, going)
        going.shape = (1,)
        e.walker.block(block.ops, body, env)
        if carried.grown(env):
            return while_(e)
        again = env.find(condition)
        if again is None or again is going:
            e.refuse("the block does not set its condition anew")
        results = [body.identity(_scalar(body, again)), *carried.now(body, env)]
        infos = [body.info(count, []), body.info(going, []), *[body.info(v) for v in inputs]]
        proto = body.proto(g.hint + ".body", infos, [body.info(results[0], []), *[body.info(v) for v in results[1:]]])
    found = g.ops("Loop", len(carried.first), None, _scalar(g, start), *carried.first,
                  dtypes=[v.dtype for v in carried.first], body=proto)  # fmt: skip
    for value, was in zip(found, carried.first):
        value.sort = was.sort
    carried.bind(e.env, found)
    e.env.bind(condition, g.const([False]))


def branches(e: Emission, condition: Value, sides: Sequence[Any]) -> list[Value]:
    """If over two functions graph -> list of Values."""
    g = e.g
    protos, results = [], []
    for side in sides:
        with g.child() as branch:
            branch.hint = g.hint
            results = [branch.identity(v) for v in side(branch)]
            protos.append(branch.proto(branch.fresh(g.hint + ".branch"), [], [branch.info(v) for v in results]))
    found = g.ops("If", len(results), condition, dtypes=[v.dtype for v in results], then_branch=protos[0],
                  else_branch=protos[1])  # fmt: skip
    for value, was in zip(found, results):
        value.sort = was.sort
    return found


@emits("conditional_block", "conditional_block_infer")
def conditional_block(e: Emission) -> None:
    g, block = e.g, e.op._block_attr("sub_block")
    conditions = e.xs("Cond")
    if e["is_scalar_condition"]:
        run = _scalar(g, conditions[0])
    else:
        run = g.const(True)
        for c in conditions:
            run = run & (g.op("Size", c) > 0)
    names = _written(e)
    if not names:
        return
    carried = _Carried(e, names)

    def taken(branch: Graph) -> list[Value]:
        env = Env(e.env)
        e.walker.block(block.ops, branch, env)
        for name in names:
            if env.find(name) is None:
                raise RefusedError(f"the block does not write {name!r}")
        return carried.now(branch, env)

    carried.bind(e.env, branches(e, run, (taken, lambda branch: carried.first)))


@emits("select_input")
def select_input(e: Emission) -> None:
    xs, lods = e.xs("X"), [e.env.lod(n) for n in e.op.input("X")]
    if len({len(lod) for lod in lods}) != 1:
        e.refuse("the inputs have LoDs of different depth")
    mask = e.g.cast(e.g.reshape(e.x("Mask")), np.int64)

    def chosen(g: Graph, first: int) -> list[Value]:
        if first == len(xs) - 1:
            return [xs[first], *lods[first]]
        here = g.op("Equal", mask, g.const(first, np.int64))
        inner = Emission(e.op, g, e.env, e.walker)
        return branches(inner, here, (lambda b: [xs[first], *lods[first]], lambda b: chosen(b, first + 1)))

    found = chosen(e.g, 0)
    shapes = {x.shape for x in xs}
    if len(shapes) == 1 and found[0].sort == "tensor":
        found[0].shape = shapes.pop()
    e.set("Out", found[0], found[1:])


@emits("select_output")
def select_output(e: Emission) -> None:
    """Every branch sees the value; select_input behind them takes that of the one meant."""
    for k, name in enumerate(e.op.output("Out")):
        if name != e.name("X"):
            e.set("Out", e.x("X"), e.lod("X"), k)


@emits("recurrent")
def recurrent(e: Emission) -> None:
    g, block = e.g, e.op._block_attr("sub_block")
    names, outs = e.op.input("inputs"), e.op.output("outputs")
    if any(e.env.lod(n) for n in names):
        e.refuse("steps over a tensor with LoD")
    xs, first = e.xs("inputs"), e.xs("initial_states")
    with g.child() as body:
        body.hint = g.hint
        states = [body.input(n, v.dtype, v.shape) for n, v in zip(e["ex_states"], first)]
        slices = [body.input(n + ".step", x.dtype, x.shape[1:] if x.shape else None) for n, x in zip(names, xs)]
        env = Env(e.env)
        for name, value in zip([*e["ex_states"], *names], [*states, *slices]):
            env.bind(name, value)
        e.walker.block(block.ops, body, env)
        results = []
        wanted: list[tuple[str, Value | None]] = [*zip(e["states"], first), *((n, None) for n in outs)]
        for name, was in wanted:
            now = env.find(name)
            if now is None:
                e.refuse(f"the step does not compute {name!r}")
            result = body.identity(now if was is None else body.cast(now, was.dtype))
            var = block._find_var_recursive(name)
            result.shape = result.shape or (tuple(-1 for _ in var.shape) if var is not None and var.has_shape else None)
            results.append(result)
        proto = body.proto(
            g.hint + ".body", [_ranked(body, v) for v in (*states, *slices)], [_ranked(body, v) for v in results]
        )
    attrs: dict[str, Any] = {"body": proto, "num_scan_inputs": len(xs)}
    if e["reverse"]:
        attrs["scan_input_directions"] = [1] * len(xs)
        attrs["scan_output_directions"] = [1] * len(outs)
    found = g.ops("Scan", len(results), *first, *xs, dtypes=[v.dtype for v in results], **attrs)
    stacked = found[len(first) :]
    for name, made in zip(outs, stacked):
        var = e.op.block._find_var_recursive(name)
        if var is not None and var.has_shape:
            made.shape = (-1, *(d if d > 0 else -1 for d in var.shape[1:]))
        e.env.bind(name, made)


def _ranked(g: Graph, x: Value) -> Any:
    """The value info with the rank where it is known: ONNX Runtime's Scan wants that of its results."""
    return g.info(x, None if x.shape is None else [None] * len(x.shape))


# ---- arrays ------------------------------------------------------------------------------------------------------
def _index(e: Emission) -> Value:
    return e.g.cast(e.g.reshape(e.x("I")), np.int64)


def _array(e: Emission, slot: str) -> Value:
    found = e.xs(slot)[0]
    if found.sort != "sequence":
        e.refuse(f"input {slot} is no array of tensors")
    return found


@emits("write_to_array")
def write_to_array(e: Emission) -> None:
    """An array of tensors with LoD is a sequence of their values and one of the offsets of each level."""
    g, parts = e.g, [e.x("X"), *e.lod("X")]
    name = e.op.output("Out")[0]
    first, at = e.env.find(name), _index(e)
    arrays = [empty_sequence(g, x.dtype) for x in parts] if first is None else [first, *e.env.lod(name)]
    if len(arrays) != len(parts):
        e.refuse(f"{e.name('X')!r} has {len(parts) - 1} LoD levels, other elements of the array have {len(arrays) - 1}")
    length = g.ops("SequenceLength", 1, arrays[0], dtypes=[np.int64])[0]

    def shorter(branch: Graph) -> list[Value]:
        return [_sequence(branch.ops("SequenceErase", 1, old, at, dtypes=[old.dtype])[0]) for old in arrays]

    rest = branches(e, at < length, (shorter, lambda branch: arrays))
    new = [_sequence(g.ops("SequenceInsert", 1, old, x, at, dtypes=[x.dtype])[0]) for old, x in zip(rest, parts)]
    e.env.bind(name, new[0], new[1:])


def _sequence(value: Value) -> Value:
    value.sort = "sequence"
    return value


@emits("read_from_array")
def read_from_array(e: Emission) -> None:
    at = _index(e)
    value, *offsets = (
        e.g.ops("SequenceAt", 1, array, at, dtypes=[array.dtype])[0] for array in (_array(e, "X"), *e.lod("X"))
    )
    for level in offsets:
        level.shape = (-1,)
    e.set("Out", value, offsets)


@emits("lod_array_length")
def lod_array_length(e: Emission) -> None:
    length = e.g.ops("SequenceLength", 1, _array(e, "X"), dtypes=[np.int64])[0]
    e.set("Out", e.g.reshape(length, 1))


@emits("tensor_array_to_tensor")
def tensor_array_to_tensor(e: Emission) -> None:
    array = _array(e, "X")
    if e.walker is not None and e.walker.used(e.op.output("OutIndex")):
        e.refuse("the sizes of the elements (OutIndex)")
    out = e.g.ops("ConcatFromSequence", 1, array, dtypes=[array.dtype], axis=int(e["axis"]), new_axis=int(e["use_stack"]))
    e.set("Out", out[0])


# ---- rows by a mask ------------------------------------------------------------------------------------------------
@emits("split_lod_tensor")
def split_lod_tensor(e: Emission) -> None:
    g, x = e.g, e.x("X")
    if e.lod("X"):
        e.refuse("whole sequences chosen by a mask")
    mask = g.cast(g.reshape(e.x("Mask"), -1), np.bool_)
    e.set("OutTrue", g.op("Compress", x, mask, axis=0), ())
    e.set("OutFalse", g.op("Compress", x, ~mask, axis=0), ())


@emits("merge_lod_tensor", "merge_lod_tensor_infer")
def merge_lod_tensor(e: Emission) -> None:
    g = e.g
    if any(e.lod(s) for s in ("X", "InTrue", "InFalse")):
        e.refuse("whole sequences chosen by a mask")
    mask = g.cast(g.reshape(e.x("Mask"), -1), np.bool_)
    joined = g.concat([e.x("InTrue"), e.x("InFalse")], 0)
    at = [g.transpose(g.op("NonZero", m), [1, 0]) for m in (mask, ~mask)]
    out = g.op("ScatterND", joined, g.concat(at, 0), joined)
    out.shape = (-1, *e.out_shape()[1:])  # the declared rows are those of one branch
    e.set("Out", out, ())
