"""Control flow: While, Switch, IfElse, cond, case, switch_case, while_loop. Each appends an operator with a sub-Block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers import _eager
from millstream.fluid.layers._eager import eager_form
from millstream.fluid.layers.array import (
    array_length,
    array_read,
    array_to_lod_tensor,
    array_write,
    create_array,
    lod_rank_table,
    lod_tensor_to_array,
    max_sequence_len,
    merge_lod_tensor,
    reorder_lod_tensor_by_rank,
    select_input,
    shrink_memory,
    split_lod_tensor,
    tensor_array_to_tensor,
)
from millstream.fluid.layers.step_rnn import DynamicRNN, StaticRNN
from millstream.ir import names, walk
from millstream.ir.block import Block
from millstream.ir.printer import brief
from millstream.ir.program import Program, default_main_program
from millstream.ir.types import VarType, dtype_name
from millstream.ir.variable import Variable

__all__ = [
    "BlockGuard",
    "ConditionalBlock",
    "DynamicRNN",
    "IfElse",
    "StaticRNN",
    "Switch",
    "While",
    "array_length",
    "array_read",
    "array_to_lod_tensor",
    "array_write",
    "case",
    "cond",
    "create_array",
    "increment",
    "is_empty",
    "lod_rank_table",
    "lod_tensor_to_array",
    "max_sequence_len",
    "merge_lod_tensor",
    "reorder_lod_tensor_by_rank",
    "select_input",
    "shrink_memory",
    "split_lod_tensor",
    "switch_case",
    "tensor_array_to_tensor",
    "while_loop",
]


def increment(x: Variable, value: float = 1.0, in_place: bool = True) -> Variable:
    """x + value for a one-element tensor; in place (the default) or as a new Variable."""
    helper = LayerHelper("increment", **locals())
    _need(x, Variable, "increment", "x")
    if any(d != 1 for d in x.shape):
        raise InvalidProgramError(f"increment: x must have one element, received {x.describe()}")
    out = x if in_place else helper.create_variable_for_type_inference(dtype=x.dtype)
    helper.append_op(type="increment", inputs={"X": [x]}, outputs={"Out": [out]}, attrs={"step": float(value)})
    return out


def is_empty(x: Variable, cond: Variable | None = None) -> Variable:
    """Whether `x` has no element: bool [1] (written to `cond` when given)."""
    helper = LayerHelper("is_empty", **locals())
    if cond is None:
        cond = helper.create_variable_for_type_inference(dtype="bool")
        cond.stop_gradient = True
    helper.append_op(type="is_empty", inputs={"X": [x]}, outputs={"Out": [cond]})
    return cond


def _need(value: Any, kind: type, layer: str, what: str) -> None:
    if not isinstance(value, kind) and not (kind is Variable and hasattr(value, "_ivar")):
        raise TypeError(
            f"The type of '{what}' in {layer} must be {kind.__name__}, "
            f"but received {type(value).__name__}: {brief(value)}"
        )


def _need_condition(value: Any, layer: str, scalar: bool = True) -> None:
    _need(value, Variable, layer, "cond")
    if value.dtype is not VarType.BOOL:
        raise TypeError(f"{layer}: the condition must be a bool Variable, received {value.describe()}")
    if scalar and value.has_shape:
        size = 1
        for d in value.shape:
            size *= d
        if size != 1 and size >= 0:
            raise TypeError(f"{layer}: the condition must have one element, received {value.describe()}")


def outer_inputs(block: Block) -> list[Variable]:
    """Variables of the surrounding Blocks that `block` reads and that exist there."""
    parent = block.parent_block
    assert parent is not None
    # By name: `==` on Variables appends an operator, so `in` must not see them.
    found = {}
    for name in walk.outer_reads(block):
        var = parent._find_var_recursive(name) if name != names.EMPTY_VAR else None
        if var is not None:
            found[name] = var
    return list(found.values())


def outer_outputs(block: Block) -> list[Variable]:
    """Variables of the surrounding Blocks that `block` writes."""
    parent = block.parent_block
    assert parent is not None
    return [v for v in (parent._find_var_recursive(n) for n in walk.outer_writes(block)) if v is not None]


class BlockGuard:
    """Appending goes into a new sub-Block of `main_program` inside the ``with``."""

    def __init__(self, main_program: Program) -> None:
        _need(main_program, Program, "BlockGuard", "main_program")
        self.main_program = main_program

    def __enter__(self) -> Any:
        self.block = self.main_program._create_block()
        return self.block

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> Literal[False]:
        self.main_program._rollback()
        return False


class While:
    """Repeat a Block while a condition holds; the Block must write the condition anew.

    Args:
        cond: bool Variable of one element.
        is_test: no gradient will be asked for.

    Use::

        loop = fluid.layers.While(cond)
        with loop.block():
            ...
            fluid.layers.less_than(i, n, cond=cond)
    """

    BEFORE_WHILE_BLOCK, IN_WHILE_BLOCK, AFTER_WHILE_BLOCK = 0, 1, 2

    def __init__(self, cond: Variable, is_test: bool = False, name: str | None = None) -> None:
        self.helper = LayerHelper("while", name=name)
        self.status = While.BEFORE_WHILE_BLOCK
        _need_condition(cond, "While")
        self.cond_var = cond
        self.is_test = is_test

    @contextmanager
    def block(self) -> Iterator[Block]:
        """The Block that is repeated."""
        if self.status != While.BEFORE_WHILE_BLOCK:
            raise InvalidProgramError("While: block() can be entered once")
        program = self.helper.main_program
        self.status = While.IN_WHILE_BLOCK
        guard = BlockGuard(program)
        inner = guard.__enter__()
        try:
            yield inner
        finally:
            guard.__exit__(None, None, None)
        self.status = While.AFTER_WHILE_BLOCK
        self._complete(inner)

    def _complete(self, inner: Block) -> None:
        outs = outer_outputs(inner)
        if self.cond_var.name not in {v.name for v in outs}:
            raise InvalidProgramError(
                f"While: its Block never writes the condition {self.cond_var.name!r}, so the loop could not end; "
                "pass it as the output of a comparison: less_than(i, n, cond=cond)"
            )
        parent = inner.parent_block
        assert parent is not None
        scopes = parent.create_var(name=names.generate("_generated_var"), type=VarType.STEP_SCOPES)
        inputs = [v for v in outer_inputs(inner) if v is not self.cond_var]
        parent.append_op(
            type="while",
            inputs={"X": inputs, "Condition": [self.cond_var]},
            outputs={"Out": outs, "StepScopes": [scopes]},
            attrs={"sub_block": inner, "is_test": self.is_test},
        )


class ConditionalBlock:
    """Run a Block once if its inputs say so.

    Args:
        inputs: bool Variable of one element (scalar form); or tensors that must all be non-empty.
        is_scalar_condition: which form.
    """

    def __init__(self, inputs: Sequence[Variable], is_scalar_condition: bool = False, name: str | None = None) -> None:
        for each in inputs:
            _need(each, Variable, "ConditionalBlock", "inputs")
        self.inputs = list(inputs)
        self.is_scalar_condition = is_scalar_condition
        self.helper = LayerHelper("conditional_block", name=name)

    @contextmanager
    def block(self) -> Iterator[Block]:
        """The Block that is run."""
        guard = BlockGuard(self.helper.main_program)
        inner = guard.__enter__()
        try:
            yield inner
        finally:
            guard.__exit__(None, None, None)
        self.complete(inner)

    def complete(self, inner: Block) -> None:
        """Append the operator for a finished Block."""
        parent = inner.parent_block
        assert parent is not None
        conditions = {v.name for v in self.inputs}
        scope = parent.create_var(name=names.generate("_generated_var"), type=VarType.STEP_SCOPES)
        parent.append_op(
            type="conditional_block",
            inputs={"Cond": self.inputs, "Input": [v for v in outer_inputs(inner) if v.name not in conditions]},
            outputs={"Out": outer_outputs(inner), "Scope": [scope]},
            attrs={"sub_block": inner, "is_scalar_condition": self.is_scalar_condition},
        )


class Switch:
    """The first case whose condition holds runs, else the default.

    Use::

        with fluid.layers.Switch() as switch:
            with switch.case(step < 100):
                fluid.layers.assign(a, lr)
            with switch.default():
                fluid.layers.assign(b, lr)
    """

    def __init__(self, name: str | None = None) -> None:
        self.helper = LayerHelper("switch", name=name)
        self.inside_scope = False
        self.pre_not_conditions: list[Variable] = []

    def __enter__(self) -> Switch:
        self.inside_scope = True
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> Literal[False]:
        self.inside_scope = False
        return False

    def case(self, condition: Variable) -> Any:
        """The Block to run if `condition` holds and no earlier one did."""
        from millstream.fluid.layers.nn.elementwise import logical_and, logical_not

        self._check_inside("case")
        _need_condition(condition, "Switch.case")
        if not self.pre_not_conditions:
            chosen = condition
            self.pre_not_conditions.append(logical_not(x=condition))
        else:
            none_before = self.pre_not_conditions[-1]
            self.pre_not_conditions.append(logical_and(x=none_before, y=logical_not(x=condition)))
            chosen = logical_and(x=none_before, y=condition)
        return ConditionalBlock([chosen], is_scalar_condition=True).block()

    def default(self) -> Any:
        """The Block to run if no case did."""
        self._check_inside("default")
        if not self.pre_not_conditions:
            raise InvalidProgramError("Switch: default() needs at least one case() before it")
        return ConditionalBlock([self.pre_not_conditions[-1]], is_scalar_condition=True).block()

    def _check_inside(self, what: str) -> None:
        if not self.inside_scope:
            raise InvalidProgramError(f"Switch.{what}: call it inside `with fluid.layers.Switch() as switch:`")


class IfElse:
    """Row-wise branches: rows where `cond` holds go through one Block, the others through another.

    Args:
        cond: bool Variable [batch, 1].

    Use::

        ie = fluid.layers.IfElse(cond)
        with ie.true_block():
            ie.output(f(ie.input(x)))
        with ie.false_block():
            ie.output(g(ie.input(x)))
        out = ie()[0]
    """

    OUT_IF_ELSE_BLOCKS, IN_IF_ELSE_TRUE_BLOCKS, IN_IF_ELSE_FALSE_BLOCKS = 0, 1, 2

    def __init__(self, cond: Variable, name: str | None = None) -> None:
        _need_condition(cond, "IfElse", scalar=False)
        self.helper = LayerHelper("ifelse", name=name)
        self.cond = cond
        self.input_table: dict[str, tuple[Variable, Variable]] = {}
        self.status = IfElse.OUT_IF_ELSE_BLOCKS
        self.output_table: tuple[list[Variable], list[Variable]] = ([], [])
        self.filled = [False, False]

    def _parent(self) -> Block:
        parent = self.helper.main_program.current_block().parent_block
        assert parent is not None
        return parent

    def input(self, x: Variable) -> Variable:
        """The rows of `x` that belong to the branch being built."""
        if self.status == IfElse.OUT_IF_ELSE_BLOCKS:
            raise InvalidProgramError("IfElse.input: call it inside true_block() or false_block()")
        _need(x, Variable, "IfElse.input", "x")
        if x.name not in self.input_table:
            parent = self._parent()
            true, false = (
                parent.create_var(
                    name=names.generate("ifelse_input" + self.helper.name), dtype=x.dtype, lod_level=x.lod_level
                )
                for _ in range(2)
            )
            parent.append_op(
                type="split_lod_tensor",
                inputs={"X": x, "Mask": self.cond},
                outputs={"OutTrue": true, "OutFalse": false},
                attrs={"level": 0},
            )
            self.input_table[x.name] = (true, false)
        return self.input_table[x.name][0 if self.status == IfElse.IN_IF_ELSE_TRUE_BLOCKS else 1]

    def true_block(self) -> Any:
        """The branch for rows where the condition holds."""
        return self._branch(IfElse.IN_IF_ELSE_TRUE_BLOCKS)

    def false_block(self) -> Any:
        """The branch for the other rows."""
        return self._branch(IfElse.IN_IF_ELSE_FALSE_BLOCKS)

    @contextmanager
    def _branch(self, status: int) -> Iterator[None]:
        if self.status != IfElse.OUT_IF_ELSE_BLOCKS:
            raise InvalidProgramError("IfElse: one block can't be opened inside the other")
        if self.filled[status - 1]:
            raise InvalidProgramError("IfElse: each block can be written once")
        self.status = status
        try:
            with ConditionalBlock([self.cond]).block():
                yield
                if not self.output_table[status - 1]:
                    raise InvalidProgramError("IfElse: a block must call output()")
        finally:
            self.status = IfElse.OUT_IF_ELSE_BLOCKS
        self.filled[status - 1] = True

    def output(self, *outs: Variable) -> None:
        """Declare what the branch being built gives."""
        from millstream.fluid.layers.tensor import assign

        if self.status == IfElse.OUT_IF_ELSE_BLOCKS:
            raise InvalidProgramError("IfElse.output: call it inside true_block() or false_block()")
        table = self.output_table[self.status - 1]
        parent = self._parent()
        for out in outs:
            _need(out, Variable, "IfElse.output", "outs")
            outside = parent.create_var(name=names.generate("_".join([self.helper.name, "output"])), dtype=out.dtype)
            table.append(outside)
            assign(input=out, output=outside)

    def __call__(self) -> list[Variable]:
        """The outputs of both branches, merged into the order of the condition's rows."""
        if self.status != IfElse.OUT_IF_ELSE_BLOCKS:
            raise InvalidProgramError("IfElse: call it after both blocks")
        true, false = self.output_table
        if not true and not false:
            raise InvalidProgramError("IfElse: neither block was written")
        if bool(true) != bool(false):
            return true or false
        if len(true) != len(false):
            raise InvalidProgramError(f"IfElse: the true block gives {len(true)} outputs, the false block {len(false)}")
        return [merge_lod_tensor(in_true=t, in_false=f, mask=self.cond, x=self.cond, level=0) for t, f in zip(true, false)]


# ---- the functional forms ------------------------------------------------------------------------
def flatten_structure(value: Any) -> list[Any]:
    """Leaves of nested lists, tuples and dicts, in order."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flatten_structure(item)]
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flatten_structure(value[key])]
    return [value]


def pack_structure(like: Any, leaves: Iterator[Any]) -> Any:
    """`leaves` in the structure of `like`."""
    if isinstance(like, (list, tuple)):
        items = [pack_structure(item, leaves) for item in like]
        if hasattr(like, "_fields"):
            return type(like)(*items)
        return type(like)(items)
    if isinstance(like, dict):
        return {key: pack_structure(like[key], leaves) for key in sorted(like)}
    return next(leaves)


@eager_form(_eager.while_loop)
def while_loop(
    cond: Callable[..., Variable], body: Callable[..., Any], loop_vars: Any, is_test: bool = False, name: str | None = None
) -> Any:
    """Repeat ``loop_vars = body(*loop_vars)`` while ``cond(*loop_vars)`` holds.

    The new values are assigned to the caller's own loop variables. Raises TypeError / ValueError when `cond` and
    `body` are not callable, or `body` gives another structure than `loop_vars`.
    """
    if not callable(cond) or not callable(body):
        raise ArgumentError("while_loop: cond and body must be callable")
    if not isinstance(loop_vars, (list, tuple)) or not loop_vars:
        raise ArgumentError("while_loop: loop_vars must be a non-empty list or tuple of Variables")
    pre_cond = cond(*loop_vars)
    _need_condition(pre_cond, "while_loop")
    loop = While(pre_cond, is_test, name)
    with loop.block():
        result = body(*loop_vars)
        if not isinstance(result, (list, tuple)):
            result = [result]
        new, old = flatten_structure(result), flatten_structure(loop_vars)
        if len(new) != len(old):
            raise ValueError(f"while_loop: body gives {len(new)} values for {len(old)} loop variables")
        now_cond = cond(*result)
        for source, target in zip(new, old):
            _assign_loop_var(source, target)
        _assign_loop_var(now_cond, pre_cond)
    return loop_vars


def _assign_loop_var(source: Any, target: Any) -> None:
    from millstream.fluid.layers.tensor import assign

    if not isinstance(target, Variable):
        return
    if source is target and target.type is VarType.LOD_TENSOR_ARRAY:
        return
    assign(source, target)


@eager_form(_eager.cond)
def cond(
    pred: Variable,
    true_fn: Callable[[], Any] | None = None,
    false_fn: Callable[[], Any] | None = None,
    name: str | None = None,
) -> Any:
    """``true_fn()`` if `pred` (bool, one element) holds, else ``false_fn()``; both give one structure of Variables."""
    _need_condition(pred, "cond")
    for fn, what in ((true_fn, "true_fn"), (false_fn, "false_fn")):
        if fn is not None and not callable(fn):
            raise TypeError(f"cond: {what} must be callable, received {type(fn).__name__}")
    from millstream.fluid.layers.nn.elementwise import logical_not
    from millstream.fluid.layers.tensor import cast

    helper = LayerHelper("cond", name=name)
    true_out = _branch_outputs(helper, pred, true_fn) if true_fn is not None else None
    false_out = None
    if false_fn is not None:
        false_out = _branch_outputs(helper, logical_not(pred), false_fn)
    if true_out is None and false_out is None:
        return None
    if true_out is None or false_out is None:
        raise ValueError("cond: one branch returns values and the other returns None; both must return the same structure")
    true_flat, false_flat = flatten_structure(true_out), flatten_structure(false_out)
    if len(true_flat) != len(false_flat):
        raise ValueError(f"cond: true_fn gives {len(true_flat)} values, false_fn gives {len(false_flat)}")
    for t, f in zip(true_flat, false_flat):
        if t.dtype != f.dtype:
            raise TypeError(f"cond: true_fn gives {t.describe()}, false_fn gives {f.describe()}: the dtypes must agree")
    mask = cast(pred, dtype="int32")
    merged = iter([select_input([f, t], mask) for f, t in zip(false_flat, true_flat)])
    return pack_structure(true_out, merged)


def _branch_outputs(helper: LayerHelper, pred: Variable, fn: Callable[[], Any]) -> Any:
    block = ConditionalBlock([pred], is_scalar_condition=True)
    with block.block():
        result = fn()
        if result is None:
            return None
        outside = iter([_to_parent(helper, v) for v in flatten_structure(result)])
        return pack_structure(result, outside)


def _to_parent(helper: LayerHelper, var: Any) -> Variable:
    """A Variable of the parent Block that takes the value of `var`."""
    from millstream.fluid.layers.tensor import assign

    program = default_main_program()
    parent = program.current_block().parent_block
    assert parent is not None
    if not isinstance(var, Variable):
        from millstream.fluid.layers.tensor import fill_constant

        kind = "bool" if isinstance(var, bool) else "int64" if isinstance(var, int) else "float32"
        var = fill_constant([1], kind, float(var))
    if var.type is VarType.LOD_TENSOR_ARRAY and parent._has_var_recursive(var.name):
        return var
    out = parent.create_var(name=names.generate("_generated_var"), dtype=var.dtype, shape=var.shape, type=var.type)
    assign(var, out)
    return out


@eager_form(_eager.case)
def case(pred_fn_pairs: Any, default: Callable[[], Any] | None = None, name: str | None = None) -> Any:
    """The function of the first true predicate; else `default` (the last function when None)."""
    if not isinstance(pred_fn_pairs, (list, tuple)) or not pred_fn_pairs:
        raise TypeError("case: pred_fn_pairs must be a non-empty list of (bool Variable, callable)")
    pairs = list(pred_fn_pairs)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not callable(pair[1]):
            raise TypeError(f"case: expected (bool Variable, callable), received {pair!r}")
        _need_condition(pair[0], "case")
    if default is None:
        pairs, default = pairs[:-1], pairs[-1][1]
    elif not callable(default):
        raise TypeError("case: default must be callable")
    chosen: Callable[[], Any] = default
    for pred, fn in reversed(pairs):
        chosen = _choose(pred, fn, chosen)
    return chosen()


def _choose(pred: Variable, fn: Callable[[], Any], otherwise: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: cond(pred, fn, otherwise)


@eager_form(_eager.switch_case)
def switch_case(
    branch_index: Variable, branch_fns: Any, default: Callable[[], Any] | None = None, name: str | None = None
) -> Any:
    """The function whose key equals `branch_index` (int, one element); else `default` (the largest key's when None).

    Args:
        branch_fns: dict of int -> callable, list of (int, callable), or list of callables.
    """
    _need(branch_index, Variable, "switch_case", "branch_index")
    if branch_index.dtype not in (VarType.INT32, VarType.INT64, VarType.UINT8):
        raise TypeError(f"switch_case: branch_index must be an integer Variable, received {dtype_name(branch_index.dtype)}")
    pairs = _index_pairs(branch_fns)
    if default is None:
        *pairs, (_, default) = sorted(pairs, key=lambda p: p[0])
    elif not callable(default):
        raise TypeError("switch_case: default must be callable")
    return _switch(branch_index, pairs, default)


def _switch(branch_index: Variable, pairs: list[tuple[int, Any]], default: Callable[[], Any]) -> Any:
    from millstream.fluid.layers.compare import equal
    from millstream.fluid.layers.tensor import cast, fill_constant

    if branch_index.dtype is not VarType.INT64:
        branch_index = cast(branch_index, "int64")
    preds = []
    for index, fn in pairs:
        preds.append((equal(branch_index, fill_constant([1], "int64", index)), fn))
    chosen: Callable[[], Any] = default
    for pred, fn in preds:  # the last pair is asked first, and builds first: names of parameters depend on it
        chosen = _choose(pred, fn, chosen)
    return chosen()


def _index_pairs(branch_fns: Any) -> list[tuple[int, Any]]:
    if isinstance(branch_fns, dict):
        pairs = list(branch_fns.items())
    elif isinstance(branch_fns, (list, tuple)):
        pairs = [p if isinstance(p, tuple) else (k, p) for k, p in enumerate(branch_fns)]
    else:
        raise TypeError(f"switch_case: branch_fns must be a list or dict, received {type(branch_fns).__name__}")
    keys = [k for k, _ in pairs]
    for key, fn in pairs:
        if not isinstance(key, int) or not callable(fn):
            raise TypeError(f"switch_case: expected (int, callable), received ({key!r}, {type(fn).__name__})")
    if len(set(keys)) != len(keys) or not keys:
        raise ValueError(f"switch_case: keys must be distinct and at least one, received {keys}")
    return pairs
