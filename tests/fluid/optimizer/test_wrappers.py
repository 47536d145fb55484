"""ModelAverage, ExponentialMovingAverage, Lookahead, Recompute, Pipeline."""

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers
O = fluid.optimizer  # noqa: E741


@pytest.fixture(autouse=True)
def fresh():
    programs = fluid.program_guard(fluid.Program(), fluid.Program())
    with fluid.unique_name.guard(), programs, fluid.scope_guard(fluid.Scope()):
        yield


def build(size=1):
    x = fluid.data("x", [None, 4], "float32")
    attr = fluid.ParamAttr(initializer=fluid.initializer.Uniform(-0.5, 0.5, seed=3))
    h = L.fc(x, 8, act="tanh", param_attr=attr)
    return h, L.mean(L.square(L.fc(h, size, bias_attr=False)))


def value(name):
    return np.array(fluid.global_scope().find_var(name).get_tensor())


def start():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


FEED = {"x": np.random.RandomState(0).randn(6, 4).astype("float32")}


def test_model_average_is_the_mean_of_the_window():
    _, loss = build()
    O.SGD(0.1).minimize(loss)
    average = O.ModelAverage(0.5, min_average_window=100, max_average_window=200)
    exe, seen = start(), []
    for _ in range(5):
        exe.run(feed=FEED, fetch_list=[loss])
        seen.append(value("fc_0.w_0"))
    with average.apply(exe):
        np.testing.assert_allclose(value("fc_0.w_0"), np.mean(seen, 0), rtol=1e-5)
    np.testing.assert_array_equal(value("fc_0.w_0"), seen[-1])
    with average.apply(exe, need_restore=False):
        pass
    np.testing.assert_allclose(value("fc_0.w_0"), np.mean(seen, 0), rtol=1e-5)
    average.restore(exe)
    np.testing.assert_array_equal(value("fc_0.w_0"), seen[-1])


def test_ema_is_corrected_for_its_start():
    _, loss = build()
    O.SGD(0.1).minimize(loss)
    ema = O.ExponentialMovingAverage(0.9)
    ema.update()
    exe, want, steps = start(), 0.0, 4
    for _ in range(steps):
        exe.run(feed=FEED, fetch_list=[loss])
        want = 0.9 * want + 0.1 * value("fc_0.w_0")
    last = value("fc_0.w_0")
    with ema.apply(exe):
        np.testing.assert_allclose(value("fc_0.w_0"), want / (1 - 0.9**steps), rtol=1e-5)
    np.testing.assert_array_equal(value("fc_0.w_0"), last)


def test_lookahead_moves_slow_parameters_every_k_steps():
    _, loss = build()
    O.LookaheadOptimizer(O.SGD(0.1), alpha=0.5, k=2).minimize(loss)
    exe = start()
    first = value("fc_0.w_0")
    np.testing.assert_array_equal(value("fc_0.w_0@SLOW"), first)
    exe.run(feed=FEED, fetch_list=[loss])
    np.testing.assert_array_equal(value("fc_0.w_0@SLOW"), first)
    gradient = fluid.default_main_program().global_block().var("fc_0.w_0@GRAD")
    fast = value("fc_0.w_0")
    (g,) = exe.run(feed=FEED, fetch_list=[gradient])
    want = 0.5 * first + 0.5 * (fast - 0.1 * g)
    np.testing.assert_allclose(value("fc_0.w_0@SLOW"), want, rtol=1e-5)
    np.testing.assert_array_equal(value("fc_0.w_0"), value("fc_0.w_0@SLOW"))


def test_recompute_trains_alike():
    losses = []
    for recompute in (False, True):
        programs = fluid.program_guard(fluid.Program(), fluid.Program())
        with fluid.unique_name.guard(), programs, fluid.scope_guard(fluid.Scope()):
            fluid.default_startup_program().random_seed = 4
            h, loss = build()
            optimizer = O.Adam(0.05)
            if recompute:
                optimizer = O.RecomputeOptimizer(optimizer)
                optimizer._set_checkpoints([h])
            optimizer.minimize(loss)
            exe = start()
            losses.append([float(exe.run(feed=FEED, fetch_list=[loss])[0][0]) for _ in range(10)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_recompute_can_not_load():
    with pytest.raises(NotImplementedError):
        O.RecomputeOptimizer(O.SGD(0.1)).load({})


def test_pipeline_computes_what_the_inner_optimizer_does():
    h, loss = build()
    O.PipelineOptimizer(O.SGD(0.1), cut_list=[[h]], queue_size=3).minimize(loss)
    noted = fluid.default_main_program()._options["pipeline"]
    assert noted["cut_list"] == [[h.name]] and noted["queue_size"] == 3
    exe = start()
    losses = [float(exe.run(feed=FEED, fetch_list=[loss])[0][0]) for _ in range(3)]
    assert losses[2] < losses[0]


def test_dgc_compresses_large_parameters():
    x = fluid.data("x", [None, 128], "float32")
    loss = L.mean(L.square(L.fc(x, 128, bias_attr=False)))
    O.DGCMomentumOptimizer(0.1, 0.9, rampup_begin_step=1, sparsity=[0.99]).minimize(loss)
    exe = start()
    feed = {"x": np.random.RandomState(0).randn(4, 128).astype("float32")}
    moved = []
    for _ in range(3):
        before = value("fc_0.w_0")
        exe.run(feed=feed, fetch_list=[loss])
        moved.append(float((value("fc_0.w_0") != before).mean()))
    assert moved[0] > 0.9 and all(0 < m < 0.011 for m in moved[1:])


def test_test_program_is_free_of_training():
    _, loss = build()
    clip = fluid.clip.GradientClipByGlobalNorm(1.0)
    O.LookaheadOptimizer(O.Adam(L.piecewise_decay([2], [0.1, 0.01]), grad_clip=clip)).minimize(loss)
    kept = [op.type for op in fluid.default_main_program().clone(for_test=True).global_block().ops]
    assert not {"adam", "square_grad", "sqrt", "elementwise_mod", "sum"} & set(kept)
