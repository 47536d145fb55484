"""Operators with sub-Blocks: while, conditional_block, recurrent, and their gradients.

A gradient is the derived one over the whole operator: the forward runs its Block under autograd and leaves a
handle; ``<op>_grad`` asks autograd for the gradients of the outer variables.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from millstream.errors import InvalidProgramError
from millstream.ir.names import EMPTY_VAR, strip_grad
from millstream.ops._grad import _detach, _leaf, _pair, leaves_of, rebuild
from millstream.ops._opdef import Block, op
from millstream.ops._values import BlockFrame, Ragged, TensorArray


class BlockHandle:
    """Autograd's leaves and results of one run of an operator with a sub-Block, by variable name."""

    def __init__(self, frame: BlockFrame, names: frozenset[str]) -> None:
        self.leaves: dict[str, Any] = {}
        self.outs: dict[str, Any] = {}
        for name in names:
            if name in frame.env:
                self.leaves[name] = frame.env[name] = rebuild(frame.env[name], _leaf)

    def finish(self, frame: BlockFrame, names: list[str]) -> None:
        """Remember the results, and leave detached values for the rest of the Program."""
        self.outs = {n: frame.env[n] for n in names if frame.env.get(n) is not None}
        for name in list(frame.env):
            frame.env[name] = rebuild(frame.env[name], _detach)

    def backward(self, names: list[str], out_names: list[str], douts: list[Any]) -> list[Any]:
        """Gradients of the leaves `names` given gradients of `out_names`."""
        results: list[torch.Tensor] = []
        grads: list[torch.Tensor] = []
        for name, dout in zip(out_names, douts):
            _pair(self.outs.get(name), dout, results, grads)
        flat: list[torch.Tensor] = []
        for name in names:
            leaves_of(self.leaves.get(name), flat)
        found: Any = [None] * len(flat)
        if results and flat:
            found = torch.autograd.grad(results, flat, grads, allow_unused=True)
        by_id = {id(t): torch.zeros_like(t) if g is None else g for t, g in zip(flat, found)}
        return [_gather(self.leaves.get(name), by_id) for name in names]


def _gather(leaf: Any, by_id: dict[int, torch.Tensor]) -> Any:
    if isinstance(leaf, torch.Tensor):
        return by_id.get(id(leaf))
    if isinstance(leaf, TensorArray):
        found = [(v, None if v is None else by_id.get(id(v.values))) for v in leaf]  # word ids have none
        return TensorArray(None if grad is None else Ragged(grad, v.lod) for v, grad in found)
    return None


def _outputs(frame: BlockFrame) -> list[str]:
    return [n for names in frame.outputs.values() for n in names]


def _grad_of_block(frame: BlockFrame, handle: BlockHandle | None, x_slot: str, out_slot: str) -> None:
    """Fill ``<x_slot>@GRAD`` from the handle (zeros when the Block did not run)."""
    names = frame.inputs.get(x_slot, [])
    targets = frame.outputs.get(x_slot + "@GRAD", [])
    dout_names = [n for n in frame.inputs.get(out_slot + "@GRAD", []) if n != EMPTY_VAR]
    wanted = [(n, t) for n, t in zip(names, targets) if t != EMPTY_VAR]
    if handle is None:
        for name, target in wanted:
            frame.env[target] = rebuild(frame.env.get(name), torch.zeros_like)
        return
    # Fluid's own Programs do not keep the gradients in the order of the outputs: match them by name.
    douts = [frame.env.get(n) for n in dout_names]
    grads = handle.backward([n for n, _ in wanted], [strip_grad(n) for n in dout_names], douts)
    given: set[str] = set()
    for (name, target), grad in zip(wanted, grads):
        if grad is None or name in given:  # a variable in two places: the Program adds its gradients up
            grad = rebuild(frame.env.get(name), torch.zeros_like)
        frame.env[target] = grad
        given.add(name)


def _scalar(value: Any, what: str) -> bool:
    if value is None:
        raise InvalidProgramError(f"{what}: the condition has no value")
    if value.numel() != 1:
        raise InvalidProgramError(f"{what}: the condition must have one element, received shape {list(value.shape)}")
    return bool(value)


def _lay_out(frame: BlockFrame) -> None:
    """Give tensors of up to three dims whose rows lie apart (transposed ones) memory of their own, once for all steps.

    Products would copy them in every step. Maps of pixels stay: their channels lie together on purpose.
    """
    for name, value in frame.env.items():
        if isinstance(value, torch.Tensor) and value.dim() <= 3 and not value.is_contiguous():
            frame.env[name] = value.contiguous()


def _taped(tape: frozenset[str] | None) -> Any:
    return nullcontext() if tape is None else torch.enable_grad()


@op("while", slots="X*, Condition -> Out*, StepScopes?~", block=True)
def while_(frame: BlockFrame, *, sub_block: Block, is_test: bool = False, tape=None):
    """Run the sub-Block as long as Condition (one bool) is true; the Block must update Condition."""
    _lay_out(frame)
    handle = None if tape is None else BlockHandle(frame, tape)
    condition = frame.inputs["Condition"][0]
    env, lods, body = frame.env, frame.lods, frame.body
    with _taped(tape):
        while _scalar(env.get(condition), "while"):
            body(env, lods, frame.ctx)
    if handle is not None:
        handle.finish(frame, _outputs(frame))
    return handle


@op("while_grad", slots="X*, Out*, Out@GRAD*?, StepScopes? -> X@GRAD*", block=True, grad=False)
def while_grad(frame: BlockFrame, *, handle):
    _grad_of_block(frame, handle, "X", "Out")


def _conditional(frame: BlockFrame, scalar: bool, tape) -> BlockHandle | None:
    conditions = [frame.env.get(n) for n in frame.inputs.get("Cond", [])]
    if scalar:
        run = _scalar(conditions[0], "conditional_block")
    else:
        run = all(c is not None and c.numel() != 0 for c in conditions)
    if not run:
        return None
    handle = None if tape is None else BlockHandle(frame, tape)
    with _taped(tape):
        frame.body(frame.env, frame.lods, frame.ctx)
    if handle is not None:
        handle.finish(frame, _outputs(frame))
    return handle


@op("conditional_block", slots="Cond*, Input* -> Out*, Scope?~", block=True)
def conditional_block(frame: BlockFrame, *, sub_block: Block, is_scalar_condition: bool = False, tape=None):
    """Run the sub-Block once if Cond is true (scalar form), or if every Cond tensor is non-empty."""
    return _conditional(frame, is_scalar_condition, tape)


@op("conditional_block_infer", slots="Cond*, Input* -> Out*, Scope?~", block=True, grad=False)
def conditional_block_infer(frame: BlockFrame, *, sub_block: Block, is_scalar_condition: bool = False):
    """conditional_block of inference Programs."""
    _conditional(frame, is_scalar_condition, None)


@op(
    "conditional_block_grad",
    slots="Cond*, Input*, Out*, Out@GRAD*?, Scope? -> Input@GRAD*, Cond@GRAD*?",
    block=True,
    grad=False,
)
def conditional_block_grad(frame: BlockFrame, *, handle):
    _grad_of_block(frame, handle, "Input", "Out")


def _step_outputs(operator: Any) -> list[str]:
    """Names of the step Block that `recurrent` reads after each step."""
    return [*operator.attrs.get("states", []), *operator.output("outputs")]


@op(
    "recurrent",
    slots="inputs*, initial_states*, parameters* -> outputs*, step_scopes?~",
    block=True,
    exports=_step_outputs,
)
def recurrent(
    frame: BlockFrame,
    *,
    sub_block: Block,
    has_states: bool = False,
    ex_states: list[str] = [],
    states: list[str] = [],
    reverse: bool = False,
    is_train: bool = True,
    tape=None,
):
    """StaticRNN: run the step Block over dimension 0 of `inputs`, stack each step's `outputs`.

    State `states[k]` of a step is `ex_states[k]` of the next; the first are `initial_states`.
    """
    _lay_out(frame)
    handle = None if tape is None else BlockHandle(frame, tape)
    env = frame.env
    inputs = frame.inputs.get("inputs", [])
    outputs = frame.outputs.get("outputs", [])
    if not inputs:
        raise InvalidProgramError("recurrent: needs at least one step input")
    lengths = {n: env[n].shape[0] for n in inputs}
    length = lengths[inputs[0]]
    if any(v != length for v in lengths.values()):
        raise InvalidProgramError(f"recurrent: step inputs must have one length in dimension 0, received {lengths}")
    collected: dict[str, list[torch.Tensor]] = {n: [] for n in outputs}
    with _taped(tape):
        steps = {n: env[n].unbind(0) for n in inputs}
        step = dict(env)
        step.update(zip(ex_states, (env[n] for n in frame.inputs.get("initial_states", []))))
        for t in reversed(range(length)) if reverse else range(length):
            for n in inputs:
                step[n] = steps[n][t]
            frame.body(step, frame.lods, frame.ctx)
            for n in outputs:
                collected[n].append(step[n])
            step.update([(ex, step[s]) for ex, s in zip(ex_states, states)])
        for n in outputs:
            values = collected[n][::-1] if reverse else collected[n]
            env[n] = torch.stack(values)
            frame.lods.pop(n, None)
    if handle is not None:
        handle.finish(frame, outputs)
    return handle


@op(
    "recurrent_grad",
    slots="inputs*, initial_states*, parameters*, outputs*, outputs@GRAD*?, step_scopes? "
    "-> inputs@GRAD*?, initial_states@GRAD*?, parameters@GRAD*?",
    block=True,
    grad=False,
)
def recurrent_grad(frame: BlockFrame, *, handle):
    slots = ("inputs", "initial_states", "parameters")
    names: list[str] = []
    targets: list[str] = []
    for slot in slots:
        given = frame.outputs.get(slot + "@GRAD", [])
        names += frame.inputs.get(slot, [])[: len(given)]
        targets += given
    merged = frame._replace(
        inputs=frame.inputs | {"all": names},
        outputs={"all@GRAD": targets},
    )
    _grad_of_block(merged, handle, "all", "outputs")
