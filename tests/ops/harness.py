"""Running one operator through the public API, and checking its gradients by differences."""

from __future__ import annotations

from typing import Any

import numpy as np

import millstream.fluid as fluid


def as_lod_tensor(value: Any, lod: Any = None) -> Any:
    """`value` as a LoDTensor with recursive sequence lengths `lod`."""
    tensor = fluid.LoDTensor()
    tensor.set(np.asarray(value), fluid.CPUPlace())
    if lod:
        tensor.set_recursive_sequence_lengths(lod)
    return tensor


def _declare(block: Any, inputs: dict[str, Any], lods: dict[str, Any], shapes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    slots, feed = {}, {}
    for slot, value in inputs.items():
        variables = []
        for k, array in enumerate(value if isinstance(value, list) else [value]):
            name, array = f"{slot}_{k}", np.asarray(array)
            lod = lods.get(name)
            shape = shapes.get(name) or ([-1, *array.shape[1:]] if lod else list(array.shape))
            var = block.create_var(
                name=name, shape=shape, dtype=str(array.dtype), lod_level=len(lod or ()), stop_gradient=False
            )
            feed[name] = as_lod_tensor(array, lod)
            variables.append(var)
        slots[slot] = variables
    return slots, feed


def build_op(
    type: str, inputs: dict[str, Any], attrs: dict[str, Any], outputs: dict[str, int], lods: Any = None, shapes: Any = None
) -> tuple[Any, dict[str, Any], dict[str, list[Any]]]:
    """(Program with the one operator, feed, output Variables by slot).

    Args:
        inputs: slot -> array or list of arrays; variables are called ``<slot>_<k>``.
        outputs: slot -> number of variables.
        lods: variable -> recursive sequence lengths.
        shapes: variable -> declared shape where it differs from the array's.
    """
    program = fluid.Program()
    block = program.global_block()
    slots, feed = _declare(block, inputs, lods or {}, shapes or {})
    outs = {s: [block.create_var(name=f"out_{s}_{k}") for k in range(n)] for s, n in outputs.items()}
    block.append_op(type=type, inputs=slots, outputs=outs, attrs=attrs)
    return program, feed, outs


def run_op(
    type: str, inputs: dict[str, Any], attrs: dict[str, Any], outputs: dict[str, int], lods: Any = None, shapes: Any = None
) -> dict[str, Any]:
    """Run the operator; returns {slot: LoDTensor, or a list where the slot has several}."""
    program, feed, outs = build_op(type, inputs, attrs, outputs, lods, shapes)
    names = [v for vs in outs.values() for v in vs]
    found = iter(fluid.Executor(fluid.CPUPlace()).run(program, feed=feed, fetch_list=names, return_numpy=False))
    return {s: ([next(found) for _ in vs] if len(vs) > 1 else next(found)) for s, vs in outs.items()}


def numeric_grad_check(
    type: str,
    inputs: dict[str, Any],
    attrs: dict[str, Any],
    outputs: dict[str, int],
    wrt: list[str],
    of: str | None = None,
    lods: Any = None,
    step: float = 1e-5,
    tolerance: float = 1e-6,
) -> None:
    """Compare the gradients of a weighted sum of output slot `of` with central differences; inputs are float64."""
    program, feed, outs = build_op(type, inputs, attrs, outputs, lods)
    block = program.global_block()
    targets = outs[of or next(iter(outs))]
    executor, rng = fluid.Executor(fluid.CPUPlace()), np.random.RandomState(0)
    values = executor.run(program, feed=feed, fetch_list=targets, return_numpy=False)
    weights = []
    for k, value in enumerate(values):
        weight = rng.uniform(0.5, 1.5, np.asarray(value).shape)
        var = block.create_var(name=f"weight_{k}", shape=list(targets[k].shape), dtype="float64")
        feed[var.name] = as_lod_tensor(weight)
        weights.append((var, weight))
    grads = fluid.gradients(targets, [block.var(n) for n in wrt], target_gradients=[v for v, _ in weights])
    assert all(g is not None for g in grads), f"{type}: no gradient for {[n for n, g in zip(wrt, grads) if g is None]}"
    analytic = [np.asarray(g) for g in executor.run(program, feed=feed, fetch_list=grads, return_numpy=False)]

    def objective() -> float:
        found = executor.run(program, feed=feed, fetch_list=targets, return_numpy=False)
        return float(sum((np.asarray(v) * w).sum() for v, (_, w) in zip(found, weights)))

    for name, grad in zip(wrt, analytic):
        base = np.asarray(feed[name]).copy()
        lod = feed[name].recursive_sequence_lengths()
        numeric = np.zeros_like(base)
        for at in np.ndindex(base.shape):
            sides = []
            for sign in (1, -1):
                moved = base.copy()
                moved[at] += sign * step
                feed[name] = as_lod_tensor(moved, lod)
                sides.append(objective())
            numeric[at] = (sides[0] - sides[1]) / (2 * step)
        feed[name] = as_lod_tensor(base, lod)
        grad = grad.reshape(base.shape)
        np.testing.assert_allclose(grad, numeric, rtol=tolerance, atol=tolerance, err_msg=f"{type}: {name}")
