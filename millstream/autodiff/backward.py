"""append_backward and gradients: appending the gradient operators of a Program to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from millstream.autodiff.collect import Collector, append_specs, count_pass, wanted_test
from millstream.autodiff.recompute import Replay
from millstream.errors import InvalidProgramError
from millstream.ir import names, walk
from millstream.ir.block import Block
from millstream.ir.operator import OP_ROLE, OP_ROLE_VAR, ROLE_BACKWARD, ROLE_LOSS, ROLE_OPTIMIZE, Operator
from millstream.ir.site import user_site
from millstream.ir.variable import Parameter, Variable


def append_backward(
    loss: Variable,
    parameter_list: Any = None,
    no_grad_set: Any = None,
    callbacks: Any = None,
    checkpoints: Any = None,
) -> list[tuple[Parameter, Variable]]:
    """Append the operators that compute d loss / d parameter for every trainable Parameter.

    Args:
        loss: a Variable of shape [1].
        parameter_list: Parameters (or names) to differentiate for; all trainable ones when None.
        no_grad_set: Variables (or names) through which no gradient flows.
        callbacks: called as ``f(block=, context=)`` after each appended operator; `context` maps gradients to variables.
        checkpoints: Variables (or names) to keep; what lies between them is computed again in the backward pass
            instead of being kept (see :mod:`millstream.autodiff.recompute`).

    Returns:
        (parameter, gradient) pairs, in the order of the parameters.

    Raises:
        InvalidProgramError: the loss has more than one element.
    """
    _check_loss(loss)
    calls = _callbacks(callbacks)
    block = loss.block
    program = block.program
    if loss.op is not None:
        loss.op._set_attr(OP_ROLE, int(loss.op.attrs.get(OP_ROLE, 0)) | ROLE_LOSS)
    no_grad = _no_grad_names(block, no_grad_set, frozen=True)
    params = _parameters(program, parameter_list)
    collector = Collector(block, count_pass(block))
    replay = Replay(block, _path(block, [loss.name]), checkpoints) if checkpoints else None
    with program._role_guard(ROLE_BACKWARD | ROLE_LOSS, []):
        seed = block.create_var(name=loss.grad_name, shape=loss.shape, dtype=loss.dtype)
        fill = block.append_op(
            "fill_constant",
            outputs={"Out": seed},
            attrs={"shape": [1], "value": 1.0, "dtype": loss.dtype, "force_cpu": False},
        )
        fill._attrs.pop(OP_ROLE_VAR, None)
    path = _path(block, [loss.name])
    collector.seed(loss.name, seed.name)
    wanted = wanted_test(block, {n for op in path for n in (*walk.reads_of(op), *op.output_arg_names)}, no_grad)
    for op in reversed(path):
        if replay is not None:
            replay.before(op, collector)
        collector.visit(op, wanted)
    if replay is not None:
        replay.close(collector)
    collector.finish()
    found = {p.name: collector.complete(p.name) for p in params}
    append_specs(block, collector, found, calls)
    pairs: list[tuple[Parameter, Variable]] = []
    for p in params:
        name = found[p.name]
        if name is not None and p.name not in no_grad:
            pairs.append((p, block._var_recursive(name)))
    return pairs


def gradients(targets: Any, inputs: Any, target_gradients: Any = None, no_grad_set: Any = None) -> list[Variable | None]:
    """Append operators for the gradients of `targets` with respect to `inputs`.

    Args:
        targets, inputs: Variables or lists of them.
        target_gradients: one gradient per target (ones where None). A target that another target depends on does
            not count itself, as in Fluid 1.8.5.
        no_grad_set: Variables (or names) through which no gradient flows.

    Returns:
        One Variable per input; None where no target depends on it, but for one input an empty list then, as in 1.8.5.
        A target that is an input too has None unless an operator between inputs and targets reads or writes it.
    """
    targets, inputs = _variables(targets, "targets"), _variables(inputs, "inputs")
    given = [None] * len(targets) if target_gradients is None else _as_list(target_gradients)
    if len(given) != len(targets):
        raise InvalidProgramError(f"gradients: {len(targets)} targets but {len(given)} target_gradients")
    block = targets[0].block
    no_grad = _no_grad_names(block, no_grad_set, frozen=False)
    collector = Collector(block, count_pass(block))
    path = _between(_path(block, [t.name for t in targets]), {v.name for v in inputs}, no_grad)
    for target, gradient in zip(targets, given):
        collector.seed(target.name, _seed_gradient(block, target, gradient))
    read = {n for op in path for n in walk.reads_of(op)}
    touched = read | {n for op in path for n in walk.writes_of(op)}
    wanted = wanted_test(block, read, no_grad)
    done: dict[str, str | None] = {}
    first_maker = _first_makers(path, {v.name for v in inputs})
    for op in reversed(path):
        for name in first_maker.get(id(op), ()):
            done[name] = collector.complete(name)
        collector.visit(op, wanted)
    collector.finish()
    for v in inputs:
        if v.name not in done:
            done[v.name] = collector.complete(v.name)
    append_specs(block, collector)
    results: list[Variable | None] = []
    for v in inputs:
        made = done[v.name]
        results.append(block._var_recursive(made) if made and v.name in touched - no_grad else None)
    return [] if len(results) == 1 and results[0] is None else results


def calc_gradient(targets: Any, inputs: Any, target_gradients: Any = None, no_grad_set: Any = None) -> Any:
    """:func:`gradients`, but a Variable instead of a list when there is one input."""
    found = gradients(targets, inputs, target_gradients, no_grad_set)
    return (found[0] if found else None) if len(found) < 2 else found


# ---- arguments -----------------------------------------------------------------------------------
def _check_loss(loss: Any) -> None:
    if not isinstance(loss, Variable):
        raise TypeError(f"append_backward takes the loss Variable, received {type(loss).__name__}")
    size = 1
    for d in loss.shape:
        size *= d
    if loss.has_shape and size != 1:
        raise InvalidProgramError(
            f"append_backward: the loss must have one element, received {loss.describe()}; "
            f"take its mean first (fluid.layers.mean)\n    at {user_site()}"
        )


def _callbacks(given: Any) -> list[Callable[..., Any]]:
    calls = [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    for call in calls:
        if not callable(call):
            raise TypeError(f"append_backward: callbacks must be callable, received {type(call).__name__}")
    return calls


def _no_grad_names(block: Block, given: Any, frozen: bool) -> set[str]:
    """Variables that take no gradient: stopped ones, those given and, if `frozen`, Parameters that are not trainable.

    Where the gradient of an earlier call is stopped, what it is the gradient of takes no further one either, as in 1.8.5.
    """
    found: set[str] = set()
    for b in block.program.blocks:
        for v in b.vars.values():
            if v.stop_gradient or (frozen and isinstance(v, Parameter) and not v.trainable):
                found.update((v.name, v.name.partition(names.GRAD_SUFFIX)[0]))
    if given is not None and not isinstance(given, (set, list, tuple, frozenset)):
        raise TypeError(f"no_grad_set takes a set of names or Variables, received {type(given).__name__}")
    for item in given or ():
        if isinstance(item, Variable):
            found.add(item.name)
        elif isinstance(item, str):
            found.add(item)
        else:
            raise TypeError(f"no_grad_set takes names or Variables, received {type(item).__name__}")
    return found


def _parameters(program: Any, parameter_list: Any) -> list[Parameter]:
    if parameter_list is None:
        return [p for p in program.global_block().all_parameters() if p.trainable]
    found = []
    for item in parameter_list:
        name = item if isinstance(item, str) else getattr(item, "name", None)
        if name is None:
            raise TypeError(f"parameter_list takes Parameters or names, received {type(item).__name__}")
        found.append(program.global_block().var(name))
    return found


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _variables(value: Any, what: str) -> list[Variable]:
    found = _as_list(value)
    for v in found:
        if not isinstance(v, Variable):
            raise TypeError(f"gradients: {what} must be Variables, received {type(v).__name__}")
    if not found:
        raise InvalidProgramError(f"gradients: {what} is empty")
    return found


# ---- which operators -------------------------------------------------------------------------------
def _path(block: Block, targets: Sequence[str]) -> list[Operator]:
    """The operators that `targets` depend on, in order.

    Optimizer operators write parameters, but after everything that was computed from them. Operators of an earlier
    backward pass count where a target depends on them (gradient penalties).
    """
    need = set(targets)
    kept: list[Operator] = []
    for op in reversed(block.ops):
        if op.role & ROLE_OPTIMIZE:
            continue
        if op.is_target or any(n in need for n in walk.writes_of(op)):
            kept.append(op)
            need.update(walk.reads_of(op))
    kept.reverse()
    return kept


def _between(path: list[Operator], sources: set[str], no_grad: set[str]) -> list[Operator]:
    """Those operators of `path` that depend on `sources`."""
    reached = set(sources)
    kept = []
    for op in path:
        if any(n in reached and n not in no_grad for n in walk.reads_of(op)):
            reached.update(walk.writes_of(op))
            kept.append(op)
    return kept


def _first_makers(path: Iterable[Operator], inputs: set[str]) -> dict[int, list[str]]:
    """id of the first operator that writes an input -> the inputs that it writes."""
    left = set(inputs)
    found: dict[int, list[str]] = {}
    for op in path:
        made = [n for n in dict.fromkeys(op.output_arg_names) if n in left]
        left.difference_update(made)
        reads = set(op.input_arg_names)
        if made := [n for n in made if n not in reads]:  # what it updates was there before
            found[id(op)] = made
    return found


def _seed_gradient(block: Block, target: Variable, gradient: Any) -> str:
    if gradient is not None:
        if not isinstance(gradient, Variable):
            raise TypeError(f"gradients: target_gradients takes Variables or None, received {type(gradient).__name__}")
        if gradient.has_shape and target.has_shape and gradient.shape != target.shape:
            raise InvalidProgramError(
                f"gradients: the gradient {gradient.describe()} must have the shape of its target {target.describe()}"
            )
        return gradient.name
    name = target.grad_name
    if block._has_var_recursive(name):
        name = names.generate(name)
    with block.program._role_guard(ROLE_BACKWARD, []):
        shape = block.create_var(name=target.name + "_shape")
        block.append_op("shape", {"Input": target}, {"Out": shape})
        seed = block.create_var(name=name, shape=target.shape, dtype=target.dtype)
        attrs = {"shape": list(target.shape), "value": 1.0, "dtype": target.dtype}
        block.append_op("fill_constant", {"ShapeTensor": shape}, {"Out": seed}, attrs)
    return name
