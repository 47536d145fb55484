"""Operators that reach out of the Program: printing, Python functions, the Scope, places."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from millstream.errors import InvalidProgramError
from millstream.ir.names import EMPTY_VAR, grad_name
from millstream.ops._opdef import OpSpec, op
from millstream.ops._values import Ragged, SelectedRows, TensorArray

# ---- print ---------------------------------------------------------------------------------------
_LETTER = {
    torch.float32: "f",
    torch.float64: "d",
    torch.int32: "i",
    torch.int64: "l",
    torch.bool: "b",
    torch.uint8: "h",
    torch.int8: "a",
    torch.int16: "s",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}


def _print_grad(o, out_grads, wanted):
    x, g = o.input("In")[0], out_grads.get(o.output("Out")[0])
    if g is None or not wanted(x):
        return []
    attrs = {k: v for k, v in o.attrs.items() if not k.startswith("op_")}
    return [OpSpec("print", {"In": [g]}, {"Out": [grad_name(x)]}, {**attrs, "is_forward": False})]


def _numbers(t, count):
    flat = t.detach().reshape(-1)
    flat = (flat if count < 0 else flat[:count]).cpu()
    if flat.dtype is torch.bool:
        flat = flat.to(torch.uint8)
    return "".join((f"{v:g}" if isinstance(v, float) else str(v)) + "," for v in flat.tolist())


@op("print", slots="In# -> Out#", shares=True, infer="Out=In", grad=_print_grad, side_effect=True)
def print_(
    x,
    *,
    first_n: int = -1,
    message: str = "",
    summarize: int = 20,
    print_tensor_name: bool = True,
    print_tensor_type: bool = True,
    print_tensor_shape: bool = True,
    print_tensor_lod: bool = True,
    print_phase: str = "BOTH",
    is_forward: bool = True,
    names,
    state,
):
    """Passes its input on and writes it to standard output.

    Args:
        first_n: how many times it prints (-1: always).
        summarize: how many numbers it prints (-1: all).
        print_phase: FORWARD, BACKWARD (then the gradient is printed where it passes back) or BOTH.
    """
    phase = print_phase.upper()
    if phase == ("BACKWARD" if is_forward else "FORWARD"):
        return x
    state["count"] = state.get("count", 0) + 1
    if 0 <= first_n < state["count"]:
        return x
    for item in x.values if isinstance(x.values, TensorArray) else [x]:
        if item is not None:
            fields = (print_tensor_name, print_tensor_shape, print_tensor_type, print_tensor_lod)
            _write(item, message, names["In"][0], summarize, fields)
    return x


def _write(x, message, name, summarize, fields):
    """Write one tensor; `fields`: whether its name, shape, type and LoD are shown."""
    show_name, show_shape, show_type, show_lod = fields
    t = x.values.values if isinstance(x.values, SelectedRows) else x.values
    lines = [f"{int(time.time())}\t{message}\tThe place is:{'CPUPlace' if t.device.type == 'cpu' else t.device}"]
    if show_name:
        lines.append(f"Tensor[{name}]")
    if show_shape:
        lines.append(f"\tshape: [{''.join(f'{d},' for d in t.shape)}]")
    if show_type:
        lines.append(f"\tdtype: {_LETTER.get(t.dtype, t.dtype)}")
    if show_lod and x.lod:
        levels = "".join("[ " + "".join(f"{v}," for v in level.tolist()) + " ]" for level in x.lod)
        lines.append(f"\tLoD: [{levels}]")
    lines.append(f"\tdata: {_numbers(t, summarize)}")
    print("\n".join(lines), file=sys.stdout, flush=True)


# ---- py_func -------------------------------------------------------------------------------------
_CALLABLES: list[Callable[..., Any]] = []


def register_callable(function: Callable[..., Any]) -> int:
    """A number that py_func operators name `function` by, for the life of the process; the same one each time."""
    for k, known in enumerate(_CALLABLES):
        if known is function:
            return k
    _CALLABLES.append(function)
    return len(_CALLABLES) - 1


def registered_callable(number: int) -> Callable[..., Any]:
    """The function with that number; InvalidProgramError when this process registered none."""
    if not 0 <= number < len(_CALLABLES):
        raise InvalidProgramError(
            f"py_func: no Python function is registered as {number} in this process ({len(_CALLABLES)} are); "
            "a Program with py_func can't be moved to another process"
        )
    return _CALLABLES[number]


def registered_callable_count() -> int:
    """How many functions have a number."""
    return len(_CALLABLES)


def _as_ragged(value):
    if value is None:
        return Ragged(None, ())
    if hasattr(value, "_lod"):  # LoDTensor
        return Ragged(value._t, value._lod)
    if isinstance(value, torch.Tensor):
        return Ragged(value, ())
    return Ragged(torch.from_numpy(np.array(value)), ())


def _call(number, args, count, ctx):
    function = registered_callable(number)
    given = [None if a is None or a.values is None else ctx.lod_tensor(a.values.detach(), a.lod) for a in args]
    found = function(*given)
    results = list(found) if isinstance(found, (list, tuple)) else [found]
    if count == 0:
        return []
    if len(results) != count:
        name = getattr(function, "__name__", repr(function))
        raise InvalidProgramError(f"py_func: {name} must return {count} values, one an output; it returned {len(results)}")
    return [_as_ragged(r) for r in results]


class _Traced(torch.autograd.Function):
    """A py_func inside a differentiated loop: autograd calls the backward function."""

    @staticmethod
    def forward(actx, job, *tensors):  # type: ignore[override]
        job.outs = _call(job.forward_id, job.xs, job.count, job.ctx)
        actx.job = job
        return tuple(r.values for r in job.outs)

    @staticmethod
    def backward(actx, *douts):  # type: ignore[override]
        job = actx.job
        kept = [v for n, v in zip(job.x_names, job.xs) if n not in job.skip]
        kept += [v for n, v in zip(job.out_names, job.outs) if n not in job.skip]
        grads = [Ragged(d if d is not None else torch.zeros_like(o.values), o.lod) for d, o in zip(douts, job.outs)]
        found = _call(job.backward_id, [*kept, *grads], len(job.xs), job.ctx)
        return (None, *(r.values for r, x in zip(found, job.xs) if x.values is not None))


class _Job:
    def __init__(self, forward_id, backward_id, skip, names, xs, count, ctx):
        self.forward_id, self.backward_id, self.skip = forward_id, backward_id, set(skip)
        self.x_names, self.out_names = names.get("X", ()), names.get("Out", ())
        self.xs, self.count, self.ctx = xs, count, ctx
        self.outs: list[Ragged] = []


def _py_grad(o, out_grads, wanted):
    number = o.attrs.get("backward_callable_id", -1)
    if number < 0:
        return []
    specs, grads = [], []
    for out in o.output("Out"):
        g = out_grads.get(out)
        if g is None:
            g = grad_name(out)
            specs.append(OpSpec("fill_zeros_like", {"X": [out]}, {"Out": [g]}))
        grads.append(g)
    skip = set(o.attrs.get("backward_skip_vars", ()))
    kept = [n for n in (*o.input("X"), *o.output("Out")) if n not in skip]
    targets = [grad_name(x) if wanted(x) else EMPTY_VAR for x in o.input("X")]
    attrs = {"forward_callable_id": number, "backward_callable_id": -1, "backward_skip_vars": []}
    return [*specs, OpSpec("py_func", {"X": [*kept, *grads]}, {"Out": targets}, attrs)]


@op("py_func", slots="X*# -> Out*#", infer=False, grad=_py_grad, side_effect=True, calls_user=True)
def py_func(
    xs,
    *,
    forward_callable_id: int = 0,
    backward_callable_id: int = -1,
    backward_skip_vars: list[str] = [],
    ctx,
    counts,
    names,
):
    """Calls a Python function with the inputs as LoDTensors; what it returns becomes the outputs.

    It returns one value per output: a LoDTensor, an array, or None (an empty output). The backward function gets the
    inputs, the outputs (both without `backward_skip_vars`) and the gradients of the outputs, and returns the gradients
    of the inputs.
    """
    tensors = [x.values for x in xs if x.values is not None]
    if backward_callable_id >= 0 and torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        job = _Job(forward_callable_id, backward_callable_id, backward_skip_vars, names, xs, counts[0], ctx)
        values = _Traced.apply(job, *tensors)
        return [Ragged(v, r.lod) for v, r in zip(values, job.outs)]
    return _call(forward_callable_id, xs, counts[0], ctx)


# ---- Scope and places ----------------------------------------------------------------------------
@op("delete_var", slots="X* ->", infer=False, grad=False, side_effect=True)
def delete_var(xs, *, ctx, names):
    """Forgets variables of the Scope."""
    ctx.scope.erase(list(names.get("X", ())))
    return ()


@op("get_places", slots="-> Out", infer=False, grad=False)
def get_places(*, device_count: int = 0, device_type: str = "AUTO", ctx):
    """A list of places of `device_type` (CPU, CUDA or AUTO), `device_count` of them or all when 0."""
    return ctx.places(device_type, device_count)
