"""Optimizers update parameters in place: what was made of a parameter before that keeps its value."""

import numpy as np
import pytest

import millstream.fluid as fluid

layers = fluid.layers


def _through_array(p):
    array, zero = layers.create_array("float32"), layers.zeros([1], "int64")
    layers.array_write(p, zero, array)
    return layers.array_read(array, zero)


def _branch(p):
    return layers.cond(layers.ones([1], "bool"), lambda: p * 1.0, lambda: p * 2.0)


MADE = {
    "multiplied": lambda p: p * 1.0,
    "assign": layers.assign,
    "scale": lambda p: layers.scale(p, 1.0),
    "cast": lambda p: layers.cast(p, "float32"),
    "reshape": lambda p: layers.reshape(p, [2, 3]),
    "reshape_twice": lambda p: layers.reshape(layers.reshape(p, [2, 3]), [6]),
    "squeeze": lambda p: layers.squeeze(layers.unsqueeze(p, [0]), [0]),
    "slice": lambda p: layers.slice(p, [0], [1], [3]),
    "strided_slice": lambda p: layers.strided_slice(p, [0], [0], [3], [2]),
    "transpose": lambda p: layers.transpose(p, [1, 0]),
    "expand": lambda p: layers.expand(p, [1, 1]),
    "expand_as": lambda p: layers.expand_as(p, p),
    "flatten": layers.flatten,
    "crop": lambda p: layers.crop_tensor(p, [3, 2], [0, 0]),
    "concat": lambda p: layers.concat([p], 0),
    "sums": lambda p: layers.sums([p]),
    "split": lambda p: layers.split(p, 3, dim=0)[1],
    "unstack": lambda p: layers.unstack(p, 0)[0],
    "lod_reset": lambda p: layers.lod_reset(p, target_lod=[0, 1, 3]),
    "no_dropout": lambda p: layers.dropout(p, 0.3, is_test=True, dropout_implementation="upscale_in_train"),
}
ONLY_STATIC = {"array": _through_array, "cond": _branch}
UPDATES = {
    "sgd": lambda **k: fluid.optimizer.SGD(0.1, **k),
    "momentum": lambda **k: fluid.optimizer.Momentum(0.1, 0.9, **k),
    "adam": lambda **k: fluid.optimizer.Adam(0.1, **k),
    "rmsprop": lambda **k: fluid.optimizer.RMSProp(0.1, **k),
}
HALF = fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(0.5))


def _network(optimizer, make):
    x = fluid.data("x", [None, 3])
    loss = layers.mean(layers.fc(x, 2, param_attr=HALF, bias_attr=False))
    p = fluid.default_main_program().global_block().var("w")
    old = make(p)
    optimizer().minimize(loss)
    return loss, p, old


def _run(fetch, times=2, **kw):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    feed = {"x": np.ones((2, 3), "float32")}
    return [exe.run(feed=feed, fetch_list=fetch, **kw) for _ in range(times)]


@pytest.mark.parametrize("name", [*MADE, *ONLY_STATIC])
def test_what_was_made_of_a_parameter_keeps_its_value(name):
    _, p, old = _network(UPDATES["adam"], {**MADE, **ONLY_STATIC}[name])
    later = old * 3.0
    first, second = _run([old, later, p], return_numpy=False)
    first, second = [np.array(t) for t in first], [np.array(t) for t in second]
    assert (first[0] == 0.5).all() and (first[1] == 1.5).all() and (first[2] < 0.45).all()
    np.testing.assert_array_equal(second[0], np.full_like(second[0], first[2].flat[0]))


@pytest.mark.parametrize("update", UPDATES)
def test_every_optimizer_leaves_earlier_copies_alone(update):
    _, p, old = _network(UPDATES[update], MADE["multiplied"])
    ((before, after),) = _run([old, p], times=1)
    assert (before == 0.5).all() and (after < 0.5).all()


def test_step_back_toward_the_old_parameter():
    """Decoupled weight decay and layer-wise decay are written so: p = old + 0.25 * (p - old) after the update."""
    _, p, old = _network(UPDATES["sgd"], MADE["multiplied"])
    layers.assign(old + 0.25 * (p - old), p)
    runs = _run([p], times=3)
    step = 0.25 * 0.1 * 0.5  # the gradient of each weight is 1/2
    for k, (value,) in enumerate(runs):
        np.testing.assert_allclose(value, 0.5 - step * (k + 1), rtol=1e-6)


def test_results_of_a_run_stay_when_the_next_one_updates():
    _, p, old = _network(UPDATES["sgd"], MADE["reshape"])
    new = layers.reshape(p, [2, 3])
    first, _ = _run([old, new, p], return_numpy=False)
    assert [float(np.array(t).flat[0]) for t in first] == pytest.approx([0.5, 0.45, 0.45])


def test_update_inside_a_branch():
    x = fluid.data("x", [None, 3])
    loss = layers.mean(layers.fc(x, 2, param_attr=HALF, bias_attr=False))
    p = fluid.default_main_program().global_block().var("w")
    grad = fluid.gradients([loss], [p])[0]
    old = layers.reshape(p, [6])

    def step():
        rate = layers.fill_constant([1], "float32", 0.1)
        ins = {"Param": p, "Grad": grad, "LearningRate": rate}
        fluid.default_main_program().current_block().append_op(type="sgd", inputs=ins, outputs={"ParamOut": p})
        return layers.assign(rate)

    layers.cond(layers.ones([1], "bool"), step, lambda: layers.fill_constant([1], "float32", 0.1))
    ((before, after),) = _run([old * 1.0, p], times=1)
    assert (before == 0.5).all() and np.allclose(after, 0.45)


def test_a_plan_copies_only_what_is_read_after_the_update():
    """Tied weights that are reshaped in the forward pass cost nothing: nobody reads them after the update."""
    x = fluid.data("x", [None, 3])
    p = layers.create_parameter([2, 3], "float32", attr=HALF)
    loss = layers.mean(layers.matmul(x, layers.transpose(p, [1, 0])))
    fluid.optimizer.SGD(0.1).minimize(loss)
    from millstream.runtime.liveness import copied_operands

    ops = fluid.default_main_program().global_block().ops
    last = {n: i for i, op in enumerate(ops) for n in (*op.input_arg_names, *op.output_arg_names)}
    assert not copied_operands(ops, last, {loss.name})
    kept = next(op for op in ops if op.type == "transpose2").output("Out")[0]
    assert list(copied_operands(ops, last, {kept}).values()) == [{"w"}]


@pytest.mark.parametrize("name", [*MADE, "detach"])
def test_eager_too(name):
    with fluid.dygraph.guard(fluid.CPUPlace()):
        fc = fluid.dygraph.Linear(3, 2, param_attr=HALF, bias_attr=False)
        optimizer = UPDATES["adam"](parameter_list=fc.parameters())
        old = fc.weight.detach() if name == "detach" else MADE[name](fc.weight)
        layers.mean(fc(fluid.dygraph.to_variable(np.ones((2, 3), "float32")))).backward()
        optimizer.minimize(layers.mean(old))
        assert (old.numpy() == 0.5).all()
        assert (fc.weight.numpy() < 0.45).all()


def test_eager_copies_still_carry_gradients():
    with fluid.dygraph.guard(fluid.CPUPlace()):
        fc = fluid.dygraph.Linear(3, 2, param_attr=HALF, bias_attr=False)
        layers.reduce_sum(layers.reshape(fc.weight, [6]) * 2.0).backward()
        np.testing.assert_array_equal(fc.weight.gradient(), np.full((3, 2), 2.0))


def test_on_several_places():
    loss, p, old = _network(UPDATES["sgd"], MADE["multiplied"])
    with fluid.default_main_program()._optimized_guard([p]):
        layers.assign(old + 0.25 * (p - old), p)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    both = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(loss.name, places=fluid.cpu_places(2))
    feed, held = {"x": np.ones((2, 3), "float32")}, fluid.global_scope().find_var("w").get_tensor()
    for _ in range(3):
        before = np.array(held)
        (seen,) = exe.run(both, feed=feed, fetch_list=[old])
        np.testing.assert_array_equal(seen, np.concatenate([before, before]))
        np.testing.assert_allclose(np.array(held), before - 0.25 * 0.1 * 0.5, rtol=1e-5)


@pytest.mark.parametrize("fetched", [False, True])
def test_what_follows_the_update_runs_after_it_on_several_places(fetched):
    """A user's assignment behind minimize() moves half of the way back, on two places as on one."""
    with (
        fluid.program_guard(fluid.Program(), fluid.Program()),
        fluid.scope_guard(fluid.Scope()),
        fluid.unique_name.guard(),
    ):
        x = fluid.data("x", [None, 3])
        attr = fluid.ParamAttr("w", initializer=fluid.initializer.Constant(0.5))
        loss = fluid.layers.mean(fluid.layers.fc(x, 2, param_attr=attr, bias_attr=False))
        w = fluid.default_main_program().global_block().var("w")
        old = w * 1.0
        fluid.optimizer.SGD(0.1).minimize(loss)
        new = old + 0.5 * (w - old)
        fluid.layers.assign(new, w)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(fluid.default_startup_program())
        compiled = fluid.CompiledProgram(fluid.default_main_program())
        compiled = compiled.with_data_parallel(loss.name, places=fluid.cpu_places(2))
        for step in (1, 2):
            out = exe.run(compiled, feed={"x": np.ones((4, 3), "float32")}, fetch_list=[loss] + [new] * fetched)
            held = np.array(fluid.global_scope().find_var("w").get_tensor())
            np.testing.assert_allclose(held, 0.5 - 0.025 * step, rtol=1e-5)
            assert not fetched or np.allclose(out[1][:3], 0.5 - 0.025 * step)
