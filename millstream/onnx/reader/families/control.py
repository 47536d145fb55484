"""Control flow: If as conditional_blocks, Loop as while, Scan as a while over its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np

from millstream.ir.types import VarType
from millstream.onnx.reader.node import Node, Values, reads
from millstream.onnx.reader.values import Tensor, constant

Step = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def sub_block(n: Node) -> Any:
    """Operators go into a new Block inside the ``with``."""
    b = n.b
    outer = b.block
    with b.program._block_guard(outer.idx) as inner:
        b.block = inner
        try:
            yield inner
        finally:
            b.block = outer


def declared(n: Node, like: Tensor, hint: str, shape: tuple[int, ...] | None = None) -> Any:
    """A variable of the present Block that bodies write."""
    dims = list(like.shape if shape is None else shape) or [1]
    kind = VarType.LOD_TENSOR if like.sort == "tensor" else VarType.LOD_TENSOR_ARRAY
    return n.b.block.create_var(name=n.b.fresh(hint), shape=dims, dtype=like.dtype.name, type=kind)


def assign(n: Node, value: Tensor, name: str) -> None:
    """Write a value into a variable."""
    n.b.block.append_op(type="assign", inputs={"X": [n.b.variable(value)]}, outputs={"Out": [name]})


def held(n: Node, value: Tensor, hint: str) -> Tensor:
    """A variable with the value that bodies may overwrite."""
    var = declared(n, value, hint)
    assign(n, value, var.name)
    return _as(n, var.name, value)


def _as(n: Node, name: str, like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    made = Tensor(name, like.dtype, like.shape if shape is None else shape)
    made.sort = like.sort
    return made


def body_values(n: Node, graph: Any, inputs: list[Tensor]) -> Values:
    """The names of a body, its inputs bound."""
    values = Values(n.values)
    if len(graph.input) != len(inputs):
        n.fail(f"a body of {len(graph.input)} inputs is given {len(inputs)}")
    for info, value in zip(graph.input, inputs):
        values.table[info.name] = value
    n.walker.constants(graph, values)
    n.walker.nodes(graph, values)
    return values


@reads("If")
def if_(n: Node) -> None:
    """Both branches write the same variables, one under the condition, one under its negation."""
    condition = n.b.cast(n.x(), np.bool_)
    if condition.const is not None:
        graph = n.need("then_branch" if bool(condition.const.reshape(-1)[0]) else "else_branch")
        values = body_values(n, graph, [])
        for i, info in enumerate(graph.output):
            n.set(values.find(info.name), i)
        return
    graphs = [n.need("then_branch"), n.need("else_branch")]
    if len(graphs[0].output) != len(graphs[1].output):
        n.fail("its branches have different numbers of outputs")
    flags = [condition, n.b.op("logical_not", {"X": condition})]
    outer = n.b.block
    made: list[Tensor] = []
    for flag, graph in zip(flags, graphs):
        with sub_block(n) as inner:
            values = body_values(n, graph, [])
            results = [values.find(info.name) for info in graph.output]
            if not made:
                made = [_result(n, outer, r, f"{n.hint}.branch") for r in results]
            for k, (target, value) in enumerate(zip(made, results)):
                if target.rank != value.rank:
                    n.fail("its branches give results of different ranks")
                name = target.name or ""
                made[k] = _as(n, name, target, _either(target.shape, value.shape))
                outer.vars[name].shape = list(made[k].shape) or [1]
                assign(n, value, name)
        scope = outer.create_var(name=n.b.fresh("branch_scope"), type=VarType.STEP_SCOPES)
        outer.append_op(
            type="conditional_block",
            inputs={"Cond": [n.b.variable(flag)], "Input": []},
            outputs={"Out": [t.name for t in made], "Scope": [scope]},
            attrs={"sub_block": inner, "is_scalar_condition": True},
        )
    for i, value in enumerate(made):
        n.set(value, i)


def _result(n: Node, block: Any, like: Tensor, hint: str) -> Tensor:
    kind = VarType.LOD_TENSOR if like.sort == "tensor" else VarType.LOD_TENSOR_ARRAY
    var = block.create_var(name=n.b.fresh(hint), shape=list(like.shape) or [1], dtype=like.dtype.name, type=kind)
    return _as(n, var.name, like)


def _either(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(p if p == q else -1 for p, q in zip(a, b))


def counter(n: Node, start: int, kind: Any = np.int64) -> Tensor:
    return held(n, constant(np.array([start], kind)), f"{n.hint}.count")


def while_block(n: Node, condition: Tensor, body: Callable[[], Any]) -> None:
    """A while operator over `body`, which must set `condition` anew; it is built again as long as it gives True."""
    from millstream.ir import walk

    outer = n.b.block
    while True:
        before = len(n.b.program.blocks)
        with sub_block(n) as inner:
            again = body()
        if not again:
            break
        n.b.forget(before)
    reads_, writes = walk.outer_reads(inner), walk.outer_writes(inner)
    scope = outer.create_var(name=n.b.fresh("step_scopes"), type=VarType.STEP_SCOPES)
    outer.append_op(
        type="while",
        inputs={"X": [r for r in reads_ if r not in writes], "Condition": [condition.name]},
        outputs={"Out": writes, "StepScopes": [scope]},
        attrs={"sub_block": inner},
    )


def less_than(n: Node, i: Tensor, limit: Tensor) -> Tensor:
    return n.b.op("less_than", {"X": i, "Y": limit}, {"axis": -1})


def new_array(n: Node, like: Tensor, hint: str) -> str:
    """A variable for an array of tensors, and its first write at 0 left to the body."""
    var = n.b.block.create_var(
        name=n.b.fresh(hint), dtype=like.dtype.name, type=VarType.LOD_TENSOR_ARRAY, shape=list(like.shape) or [1]
    )
    return var.name


def write_array(n: Node, array: str, i: Tensor, value: Tensor) -> None:
    n.b.block.append_op(
        type="write_to_array", inputs={"X": [n.b.variable(value)], "I": [n.b.variable(i)]}, outputs={"Out": [array]}
    )


def stacked(n: Node, array: str, like: Tensor) -> Tensor:
    """An array as one tensor with a new first dim."""
    index = n.b.block.create_var(name=n.b.fresh("sizes"))
    out = n.b.block.create_var(name=n.b.fresh(n.hint))
    n.b.block.append_op(
        type="tensor_array_to_tensor", inputs={"X": [array]}, outputs={"Out": [out], "OutIndex": [index]},
        attrs={"axis": 0, "use_stack": True},
    )  # fmt: skip
    out.shape = [-1, *like.shape]
    made = Tensor(out.name, like.dtype, (-1, *like.shape))
    if like.scalar:  # its variable is [1], so that the stack has one dim too many
        made = n.b.reshape(Tensor(out.name, like.dtype, (-1, 1)), [-1])
    return made


def increment(n: Node, i: Tensor) -> None:
    n.b.block.append_op(type="increment", inputs={"X": [i.name]}, outputs={"Out": [i.name]}, attrs={"step": 1.0})


@reads("Scan")
def scan(n: Node) -> None:
    """A while over the steps: states in variables, outputs in arrays."""
    graph, count = n.need("body"), int(n.need("num_scan_inputs"))
    inputs = n.xs()
    states, xs = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    outs = len(graph.output) - len(states)
    for k, axis in enumerate(n.attr("scan_input_axes", [])):
        at = int(axis) % xs[k].rank
        xs[k] = n.b.transpose(xs[k], [at, *(i for i in range(xs[k].rank) if i != at)]) if at else xs[k]
    ends = [int(a) for a in n.attr("scan_output_axes", [0] * outs)]
    back_in = n.attr("scan_input_directions", [0] * count)
    back_out = n.attr("scan_output_directions", [0] * outs)
    if not xs:
        n.fail("no scan inputs")
    carried = [held(n, s, f"{n.hint}.state") for s in states]
    limit = n.b.dim(xs[0], 0)
    i, last = counter(n, 0), n.b.scale(limit, 1.0, -1.0) if any(back_in) else None
    limit_var = held(n, limit, f"{n.hint}.steps")
    condition = held(n, less_than(n, i, limit_var), f"{n.hint}.going")
    arrays: list[str] = []
    kinds: list[Tensor] = []
    outer = n.b.block
    sources = [Tensor(n.b.variable(x), x.dtype, x.shape) for x in xs]

    def body() -> None:
        slices = []
        for x, back in zip(sources, back_in):
            at = n.b.binary("elementwise_sub", last, i) if back and last is not None else i
            row = n.b.op("gather", {"X": x, "Index": at}, {"overwrite": False})
            slices.append(_row(n, row, x.shape[1:]))
        values = body_values(n, graph, [*carried, *slices])
        results = [values.find(info.name) for info in graph.output]
        for result in results[len(carried) :]:
            inside, n.b.block = n.b.block, outer
            arrays.append(new_array(n, result, f"{n.hint}.outputs"))
            n.b.block = inside
            kinds.append(result)
            write_array(n, arrays[-1], i, result)
        fresh = [held(n, r, f"{n.hint}.next") for r in results[: len(carried)]]
        for target, value in zip(carried, fresh):
            assign(n, value, target.name or "")
        increment(n, i)
        assign(n, less_than(n, i, limit_var), condition.name or "")

    while_block(n, condition, body)
    for k, state in enumerate(carried):
        n.set(state, k)
    for k, (array, like, back) in enumerate(zip(arrays, kinds, back_out)):
        made = stacked(n, array, like)
        if back:
            made = n.b.op("flip", {"X": made}, {"dims": [0]})
        at = ends[k] % made.rank
        made = n.b.transpose(made, [*range(1, at + 1), 0, *range(at + 1, made.rank)]) if at else made
        n.set(made, len(carried) + k)


def _row(n: Node, row: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[1, …] as […]."""
    if not shape:
        return Tensor(row.name, row.dtype, ())
    made = n.b.op("squeeze2", {"X": row}, {"axes": [0]})
    made.shape = shape
    return made


@reads("Loop")
def loop(n: Node) -> None:
    """A while over carried variables; scan outputs in arrays."""
    graph = n.need("body")
    trips, going = n.maybe(0), n.maybe(1)
    first = [n.values.find(name) for name in n.node.input[2:]]
    carried = [held(n, v, f"{n.hint}.carried") for v in first]
    i = counter(n, 0)
    limit = None if trips is None else held(n, one_row(n, n.b.cast(trips, np.int64)), f"{n.hint}.steps")
    start: Tensor = constant(np.array([True])) if going is None else one_row(n, n.b.cast(going, np.bool_))
    if limit is not None:
        below = less_than(n, i, limit)
        start = below if start.const is not None and bool(start.const.all()) else n.b.op(
            "logical_and", {"X": below, "Y": start}
        )
    condition = held(n, start, f"{n.hint}.going")
    arrays: list[str] = []
    kinds: list[Tensor] = []
    outer = n.b.block

    def body() -> bool:
        arrays.clear()
        kinds.clear()
        count = Tensor(n.b.op("assign", {"X": i}).name, i.dtype, ())
        values = body_values(n, graph, [count, Tensor(condition.name, np.bool_, ()), *carried])
        results = [values.find(info.name) for info in graph.output]
        for result in results[1 + len(carried) :]:
            inside, n.b.block = n.b.block, outer
            arrays.append(new_array(n, result, f"{n.hint}.outputs"))
            n.b.block = inside
            kinds.append(result)
            write_array(n, arrays[-1], i, result)
        widened = [_widen(outer, target, value) for target, value in zip(carried, results[1:])]
        if any(widened):
            return True  # what was made of its shape holds for the first step only
        again = held(n, one_row(n, n.b.cast(results[0], np.bool_)), f"{n.hint}.again")
        fresh = [held(n, r, f"{n.hint}.next") for r in results[1 : 1 + len(carried)]]
        for target, value in zip(carried, fresh):
            assign(n, value, target.name or "")
        increment(n, i)
        if limit is not None:
            again = n.b.op("logical_and", {"X": again, "Y": less_than(n, i, limit)})
        assign(n, again, condition.name or "")
        return False

    while_block(n, condition, body)
    for k, value in enumerate(carried):
        n.set(value, k)
    for k, (array, like) in enumerate(zip(arrays, kinds)):
        n.set(stacked(n, array, like), len(carried) + k)


def _widen(block: Any, target: Tensor, value: Tensor) -> bool:
    """A dim that changes from step to step is unknown; whether one was known until now."""
    if target.sort != "tensor" or target.rank != value.rank or target.name is None:
        return False
    known = target.shape
    target.shape = _either(known, value.shape)
    block.vars[target.name].shape = list(target.shape) or [1]
    return target.shape != known


def one_row(n: Node, x: Tensor) -> Tensor:
    """A scalar as [1]."""
    if x.const is not None:
        return constant(x.const.reshape(1))
    return Tensor(x.name, x.dtype, (1,)) if x.scalar else n.b.reshape(x, [1]) if x.shape != (1,) else x


def steps(n: Node, xs: Tensor, first: Tensor, step: Step) -> Tensor:
    """A recurrent operator: step(row of xs, state) -> new state, over dim 0; all states, stacked."""
    b = n.b
    outer = b.block
    ex = b.fresh(f"{n.hint}.before")
    xs_name, first_name = b.variable(xs), b.variable(first)
    with sub_block(n) as inner:
        inner.create_var(name=xs_name, shape=list(xs.shape[1:]), dtype=xs.dtype.name)
        inner.create_var(name=ex, shape=list(first.shape), dtype=first.dtype.name)
        new = step(Tensor(xs_name, xs.dtype, xs.shape[1:]), Tensor(ex, first.dtype, first.shape))
        state = inner.create_var(name=b.fresh(f"{n.hint}.state"), shape=list(first.shape), dtype=first.dtype.name)
        assign(n, new, state.name)
        out_name = b.fresh(f"{n.hint}.states")
        inner.create_var(name=out_name, shape=list(first.shape), dtype=first.dtype.name)
        assign(n, new, out_name)
    from millstream.ir import walk

    shape = [xs.shape[0], *new.shape]
    outer.create_var(name=out_name, shape=shape, dtype=first.dtype.name)
    scope = outer.create_var(name=b.fresh("step_scopes"), type=VarType.STEP_SCOPES)
    used = [r for r in walk.outer_reads(inner) if r not in (xs_name, ex)]
    outer.append_op(
        type="recurrent",
        inputs={"inputs": [xs_name], "initial_states": [first_name], "parameters": used},
        outputs={"outputs": [out_name], "step_scopes": [scope]},
        attrs={"sub_block": inner, "has_states": True, "ex_states": [ex], "states": [state.name], "reverse": False,
               "is_train": False},
    )  # fmt: skip
    return Tensor(out_name, first.dtype, tuple(shape))


