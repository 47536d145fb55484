"""fuse_bias_relu_pool: convolutions with a pooled relu behind them, with and without the pass; where it stays away."""

import numba  # noqa: F401  where it is loaded the kernels take small maps, too
import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(8)
FUSED = {"bias_relu_pool", "bias_relu_pool_grad"}


def network(dtype="float32", filters=5, act="relu", seen=None, data=True, **pool):
    x = fluid.data("x", [None, 3, None, None], dtype)
    x.stop_gradient = data
    y = fluid.layers.conv2d(x, filters, 3, padding=1, act=act)
    p = fluid.layers.pool2d(y, **{"pool_size": 2, "pool_stride": 2, **pool})
    loss = fluid.layers.mean(fluid.layers.square(p - 0.3))
    fluid.optimizer.SGD(0.5).minimize(loss)
    return [loss, p, *([y] if seen else []), *([] if data else [x.name + "@GRAD"])]


def feed(n=2, h=8, w=6, dtype="float32"):
    return {"x": RNG.randn(n, 3, h, w).astype(dtype)}


@pytest.mark.parametrize(("n", "h", "w", "filters"), [
    (2, 8, 6, 5), (1, 7, 9, 16), (3, 2, 2, 1), (1, 3, 2, 33), (40, 24, 24, 20), (0, 8, 6, 5),
])  # fmt: skip
@pytest.mark.parametrize("data", [True, False])
def test_training_stays(n, h, w, filters, data):
    found = types(compare(lambda: network(filters=filters, data=data), feed(n, h, w), 3 if n else 1, 2e-5, 2e-6))
    assert set(found) >= FUSED and not {"relu", "pool2d", "relu_grad", "pool2d_grad", "elementwise_add_grad"} & set(found)


def test_numbers_that_are_equal_or_none():
    """Of equal ones the first is taken; NaN and infinities go where they went."""
    given = feed(2, 8, 8)
    given["x"][0] = np.round(given["x"][0])
    given["x"][1, 0, 2, 3], given["x"][1, 1, 6, 6] = np.nan, np.inf
    main, startup, fetches = build(lambda: network(data=False))
    plain, quick = run(main, startup, given, fetches, 1, ())[0], run(main, startup, given, fetches, 1)[0]
    for a, b in zip(plain, quick):
        np.testing.assert_allclose(b, a, 2e-5, 2e-6)
    same = np.ones((1, 3, 4, 4), "float32")
    compare(lambda: network(data=False), {"x": same}, 2, 2e-5, 2e-6)


def test_two_blocks_and_two_threads():
    import torch

    def make():
        x, label = fluid.data("x", [None, 1, 28, 28], "float32"), fluid.data("label", [None, 1], "int64")
        for filters in (20, 50):
            x = fluid.nets.simple_img_conv_pool(x, filters, 5, 2, 2, act="relu")
        loss = fluid.layers.mean(fluid.layers.cross_entropy(fluid.layers.fc(x, 10, act="softmax"), label))
        fluid.optimizer.Adam(0.01).minimize(loss)
        return [loss]

    given = {"x": RNG.rand(96, 1, 28, 28).astype("float32"), "label": RNG.randint(0, 10, (96, 1)).astype("int64")}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = types(compare(make, given, 2, 2e-3, 2e-4))
    finally:
        torch.set_num_threads(before)
    assert found.count("bias_relu_pool") == found.count("bias_relu_pool_grad") == 2


@pytest.mark.parametrize("pool", [
    {"pool_size": 3}, {"pool_stride": 1}, {"pool_type": "avg"}, {"pool_padding": 1}, {"ceil_mode": True},
    {"global_pooling": True}, {"pool_padding": "SAME"},
])  # fmt: skip
def test_other_windows_stay(pool):
    assert not FUSED & set(types(compare(lambda: network(**pool), feed(2, 7, 9), 2, 2e-5, 2e-6)))


@pytest.mark.parametrize("more", [{"act": None}, {"act": "tanh"}, {"seen": True}, {"dtype": "float64"}])
def test_other_places_stay(more):
    given = feed(dtype=more.get("dtype", "float32"))
    assert not FUSED & set(types(compare(lambda: network(**more), given, 2, 2e-5, 2e-6)))


def test_a_gradient_that_is_fetched():
    def make():
        found = network()
        relu = next(op for op in fluid.default_main_program().global_block().ops if op.type == "relu")
        return [*found, relu.output("Out")[0] + "@GRAD"]

    assert not FUSED & set(types(compare(make, feed(), 2, 2e-5, 2e-6)))


def test_inference_and_batches_of_other_sizes():
    main, startup, fetches = build(network)  # minimize is in it: the clone for tests leaves it out
    exe, scope = fluid.Executor(), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        test = main.clone(for_test=True)
        for n, h, w in ((2, 8, 6), (5, 4, 4), (1, 9, 3)):
            given = feed(n, h, w)
            quiet = exe.run(test, feed=given, fetch_list=[fetches[1]])[0]
            trained = exe.run(main, feed=given, fetch_list=[fetches[1]])[0]
            assert trained.shape == (n, 5, h // 2, w // 2)
            np.testing.assert_allclose(trained, quiet, 2e-5, 2e-6)
