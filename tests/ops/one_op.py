"""One operator at a time: run it through the public API, compare its gradient with finite differences."""

import numpy as np

import millstream.fluid as fluid


class Ran:
    """Outputs (and gradients) of one run: arrays by slot, LoD as lengths by slot, inferred shapes by slot."""

    def __init__(self):
        self.outs, self.lods, self.inferred, self.grads = {}, {}, {}, {}

    def __getitem__(self, slot):
        return self.outs[slot]


def _lists(slots):
    return {s: list(v) if isinstance(v, (list, tuple)) else [v] for s, v in slots.items()}


def _declare(block, ins, lods, shapes, wrt):
    variables, feed = {}, {}
    for slot, arrays in ins.items():
        variables[slot] = []
        for k, array in enumerate(arrays):
            name = f"{slot}_{k}"
            lod = lods.get(slot) or []
            shape = shapes.get(slot) or ([-1, *array.shape[1:]] if lod else list(array.shape))
            var = block.create_var(name=name, shape=shape, dtype=str(array.dtype), lod_level=len(lod))
            var.stop_gradient = slot not in wrt
            variables[slot].append(var)
            tensor = fluid.LoDTensor()
            tensor.set(np.ascontiguousarray(array), fluid.CPUPlace())
            if lod:
                tensor.set_recursive_sequence_lengths(lod)
            feed[name] = tensor
    return variables, feed


def run_op(op, ins, attrs=None, outs=("Out",), *, lods=None, shapes=None, wrt=(), weights=None, of=None):
    """Run one operator.

    Args:
        ins: slot -> array or list of arrays.
        outs: output slots (one variable each).
        lods: slot -> LoD as lengths; shapes: slot -> declared shape (-1 for unknown dims).
        wrt: input slots whose gradient of sum(weights * output `of`) is computed too.
        weights: array of the shape of `of` (ones when None).
    """
    ins, result = _lists(ins), Ran()
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        block = program.global_block()
        variables, feed = _declare(block, ins, lods or {}, shapes or {}, wrt)
        made = {s: block.create_var(name=f"out_{s}") for s in outs}
        block.append_op(type=op, inputs=variables, outputs=made, attrs=attrs or {})
        result.inferred = {s: v.shape for s, v in made.items()}
        fetch = list(made.values())
        if wrt:
            target = made[of or outs[0]]
            seed = block.create_var(name="seed", shape=target.shape, dtype=target.dtype)
            seed.stop_gradient = True
            grads = fluid.gradients([target], [variables[s][0] for s in wrt], [seed])
            fetch += grads
    executor = fluid.Executor(fluid.CPUPlace())
    if wrt:
        if weights is None:
            weights = np.ones(run_op(op, ins, attrs, outs, lods=lods, shapes=shapes)[of or outs[0]].shape)
        first = next(iter(ins[wrt[0]]))
        feed["seed"] = np.asarray(weights, dtype=first.dtype)
    values = executor.run(program, feed=feed, fetch_list=fetch, scope=fluid.Scope(), return_numpy=False)
    for slot, tensor in zip(outs, values):
        result.outs[slot] = np.array(tensor)
        result.lods[slot] = [list(level) for level in tensor.recursive_sequence_lengths()]
    for slot, tensor in zip(wrt, values[len(outs) :]):
        result.grads[slot] = np.array(tensor)
    return result


def numeric_grad_check(op, ins, attrs=None, outs=("Out",), *, wrt, of=None, lods=None, step=1e-5, tolerance=1e-5, seed=0):
    """The declared gradient in float64 against central differences of sum(weights * output)."""
    ins = _lists(ins)
    of = of or outs[0]
    shape = run_op(op, ins, attrs, outs, lods=lods)[of].shape
    weights = np.random.RandomState(seed).uniform(0.5, 1.5, shape)
    got = run_op(op, ins, attrs, outs, lods=lods, wrt=wrt, weights=weights, of=of).grads

    def objective(slot, flat):
        moved = dict(ins)
        moved[slot] = [flat.reshape(ins[slot][0].shape), *ins[slot][1:]]
        return float((run_op(op, moved, attrs, outs, lods=lods)[of] * weights).sum())

    for slot in wrt:
        assert ins[slot][0].dtype == np.float64, f"{slot} must be float64"
        flat = ins[slot][0].ravel()
        want = np.empty_like(flat)
        for i in range(flat.size):
            up, down = flat.copy(), flat.copy()
            up[i] += step
            down[i] -= step
            want[i] = (objective(slot, up) - objective(slot, down)) / (2 * step)
        np.testing.assert_allclose(got[slot].ravel(), want, rtol=1e-4, atol=tolerance, err_msg=f"{op}: gradient of {slot}")
