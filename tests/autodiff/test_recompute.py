"""Recomputation: the same gradients, less memory, the same random numbers."""

import gc

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream.runtime.lower import Options
from millstream.runtime.plan import Context, Plan

L = fluid.layers


def build(checkpoints, depth=6, width=16, dropout=False, norm=False):
    """(main, startup, loss, gradients) of a deep net; `checkpoints`: keep every second layer's output."""
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 5
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        h = fluid.data("x", [None, width], "float32")
        kept = []
        for k in range(depth):
            attr = fluid.ParamAttr(initializer=fluid.initializer.Uniform(-0.3, 0.3, seed=k + 1))
            h = L.fc(h, width, act="tanh", param_attr=attr)
            if norm:
                h = L.batch_norm(h)
            if dropout:
                h = L.dropout(h, 0.4)
            if k % 2:
                kept.append(h)
        loss = L.mean(L.square(h))
        pairs = fluid.backward.append_backward(loss, checkpoints=kept if checkpoints else None)
    return main, startup, loss, [g for _, g in pairs]


def values(built, x, steps=1):
    main, startup, loss, grads = built
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        for _ in range(steps):
            out = exe.run(main, feed={"x": x}, fetch_list=[loss, *grads])
        state = {v.name: np.array(scope.find_var(v.name).get_tensor()) for v in main.list_vars() if v.persistable}
    return out, state


@pytest.mark.parametrize("norm", [False, True])
def test_gradients_and_states_are_equal(norm):
    x = np.random.RandomState(0).randn(8, 16).astype("float32")
    plain, state = values(build(False, norm=norm), x, 3)
    again, state_again = values(build(True, norm=norm), x, 3)
    for a, b in zip(plain, again):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert state.keys() == state_again.keys()
    for name in state:
        np.testing.assert_allclose(state[name], state_again[name], rtol=1e-5, err_msg=name)


def test_dropout_draws_the_same_mask_again():
    main, startup, *_ = build(True, dropout=True)
    ops = main.global_block().ops
    seeds = [op for op in ops if op.type == "seed"]
    copies = [op for op in ops if op.type == "dropout" and ".subprog_" in op.output("Out")[0]]
    assert len(seeds) == 6 and copies
    forward = {op.input("Seed")[0]: op.output("Mask")[0] for op in ops if op.type == "dropout" and op not in copies}
    pairs = [(forward[op.input("Seed")[0]], op.output("Mask")[0]) for op in copies]
    x = np.random.RandomState(0).randn(8, 16).astype("float32")
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        masks = exe.run(main, feed={"x": x}, fetch_list=[n for pair in pairs for n in pair])
    for a, b in zip(masks[::2], masks[1::2]):
        np.testing.assert_array_equal(a, b)
        assert 0 < np.asarray(a).mean() < 1


def test_names_follow_fluid():
    main, _, _, _ = build(True, depth=4)
    types = [op.type for op in main.global_block().ops]
    first = types.index("mean_grad")
    assert types[first:] == [
        "mean_grad", "square_grad",
        "mul", "elementwise_add", "tanh", "mul", "elementwise_add",
        "tanh_grad", "elementwise_add_grad", "mul_grad", "tanh_grad", "elementwise_add_grad", "mul_grad",
        "mul", "elementwise_add", "tanh", "mul", "elementwise_add",
        "tanh_grad", "elementwise_add_grad", "mul_grad", "tanh_grad", "elementwise_add_grad", "mul_grad",
    ]  # fmt: skip
    made = [n for op in main.global_block().ops for n in op.output_arg_names if ".subprog_" in n]
    assert made[:2] == ["fc_2.tmp_0.subprog_0", "fc_2.tmp_1.subprog_0"]
    assert made[-1] == "fc_1.tmp_1.subprog_1"


class Meter:
    """Counts the bytes of live tensors before each operator."""

    def __init__(self):
        self.peak = 0

    def enter(self, op, names, values):
        seen = {}
        for o in gc.get_objects():
            if type(o) is torch.Tensor and o.numel():
                storage = o.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(seen.values()))

    def leave(self, op, names, values):
        pass


def peak_of(built, x):
    main, startup, loss, _ = built
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        plan = Plan(main, {"x": False}, [loss.name], scope, Options(profile=True))
        context = Context(scope, torch.Generator(), exe, torch.device("cpu"))
        context.recorder = meter = Meter()
        gc.collect()
        gc.freeze()  # what is there before the step is not looked at again: neither parameters nor other tests' objects
        try:
            # parameter gradients are kept alive by an optimizer in real programs; here they die as they come
            plan.run([torch.from_numpy(x)], [()], context)
        finally:
            gc.unfreeze()
    return meter.peak


def test_peak_memory_falls():
    x = np.zeros((4096, 16), "float32")
    plain, less = (peak_of(with_backward(build(c, depth=12)), x) for c in (False, True))
    assert less < 0.7 * plain, (less, plain)


def with_backward(built):
    """Makes one gradient persistable, so that the backward pass is live."""
    for g in built[3]:
        g.persistable = True
    return built


def test_what_can_not_be_computed_again_is_kept():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        x = fluid.data("x", [4, 4], "float32")
        noise = L.uniform_random([4, 4], min=0.5, max=1.5)
        h = L.fc(L.elementwise_mul(x, noise), 4, act="tanh", bias_attr=False)
        e = L.fc(L.elementwise_mul(h, h), 4, act="tanh", bias_attr=False)
        pairs = fluid.backward.append_backward(L.mean(e), checkpoints=[e])
    copies = [op.type for op in main.global_block().ops if any(".subprog_" in n for n in op.output_arg_names)]
    assert "uniform_random" not in copies and copies[0] == "elementwise_mul"
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        v = np.ones((4, 4), "float32")
        (g,) = exe.run(main, feed={"x": v}, fetch_list=[pairs[1][1]])
    assert np.isfinite(g).all()


def test_a_reader_is_not_read_again():
    reader = fluid.layers.py_reader(4, [[-1, 3]], ["float32"], name="rows", use_double_buffer=False)
    x = fluid.layers.read_file(reader)
    first = fluid.layers.fc(x * 2.0, 4, act="tanh")
    second = fluid.layers.fc(first * 1.5, 4, act="tanh")
    loss = fluid.layers.mean(second)
    optimizer = fluid.optimizer.RecomputeOptimizer(fluid.optimizer.SGD(0.1))
    optimizer._set_checkpoints([first, second])
    optimizer.minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    reader.decorate_tensor_provider(lambda: iter([[np.full((2, 3), k, "float32")] for k in range(4)]))
    seen = []
    reader.start()
    with pytest.raises(fluid.core.EOFException):
        while True:
            seen.append(exe.run(fetch_list=[x])[0][0, 0])
    assert seen == [0, 1, 2, 3]
