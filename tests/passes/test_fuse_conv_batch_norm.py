"""fuse_conv_batch_norm: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import build, compare_largest, run, types

import millstream.fluid as fluid
from millstream.kernels import pairs
from millstream.kernels.tiles import LANES
from millstream.passes import pipelines

FUSED = (
    "normed_conv2d", "normed_conv2d_grad", "batch_norm_statistics", "batch_norm_finish_grad", "batch_norm_apply",
    "batch_norm_line_grad",
)  # fmt: skip
layers = fluid.layers


def norm(x, act="relu", **how):
    return layers.batch_norm(x, act=act, **how)


def conv(x, filters, size=1, stride=1, groups=1, **how):
    how = {"bias_attr": False, "padding": size // 2, **how}
    return layers.conv2d(x, filters, size, stride=stride, groups=groups, use_cudnn=False, **how)


def separable(x, filters, stride=1, act="relu"):
    c = x.shape[1]
    return norm(conv(norm(conv(x, c, 3, stride, c), act), filters), act)


def trained(body, *, size=64, channels=16, optimizer=None, fetch=None, dtype="float32"):
    """A function that builds training of body(image [-1, channels, size, size]) and gives what is fetched."""

    def make():
        x = layers.data("x", [channels, size, size], dtype=dtype)
        y = body(x)
        loss = layers.mean(layers.square(layers.fc(layers.pool2d(y, global_pooling=True), 3)))
        (optimizer or fluid.optimizer.Momentum(0.01, 0.9)).minimize(loss)
        block = fluid.default_main_program().global_block()
        return [loss, *(block.var(name) for name in (fetch(block) if fetch else ()))]

    return make


def feed(size=64, channels=16, batch=3, dtype="float32", draw=None):
    draw = draw or np.random.RandomState(5)
    return {"x": draw.randn(batch, channels, size, size).astype(dtype)}


def counts(plan):
    found = types(plan)
    return [found.count(t) for t in FUSED]


def mobile(x):
    """Six normalisations between convolutions, and one behind the last."""
    x = norm(conv(x, 16, 3))
    x = separable(x, 32)
    x = separable(x, 32, 2)
    return separable(x, 48)


def test_training_stays():
    plan = compare_largest(trained(mobile), feed())
    assert counts(plan) == [6, 6, 1, 1, 1, 1]


def test_channels_that_fill_no_vectors():
    plan = compare_largest(trained(lambda x: separable(separable(norm(conv(x, 20, 3)), 24), 50, 2)), feed(), steps=2)
    assert counts(plan)[0] >= 2


def test_leaky_relu_and_no_activation():
    def body(x):
        x = layers.leaky_relu(norm(conv(x, 16), None), 0.1)
        return norm(conv(norm(conv(x, 16, 3, groups=16), None), 16))

    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan) == [3, 3, 0, 0, 1, 1]


def test_relu6():
    def body(x):
        x = norm(conv(x, 16, 3), "relu6")
        x = layers.relu6(norm(conv(separable(x, 24, act="relu6"), 48), None), 0.8)
        return norm(conv(norm(conv(x, 48, 3, groups=48), "relu6"), 16), None)

    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan) == [5, 5, 1, 1, 1, 1] and "relu6" not in types(plan)


@pytest.mark.parametrize(("act", "expected"), [("hard_swish", [3, 3, 1, 1, 1, 1]), ("swish", [3, 3, 1, 1, 2, 2])])
def test_curves(act, expected):
    """1x1 filters read both kinds, depthwise ones hard_swish."""

    def body(x):
        x = norm(conv(x, 16, 3), act)
        x = norm(conv(norm(conv(x, 32), act), 32, 3, groups=32), act)
        return norm(conv(norm(conv(x, 48), act), 48, 5, groups=48), act)

    plan = compare_largest(trained(body), feed(draw=np.random.RandomState(3)), steps=2)
    assert act not in types(plan)
    assert counts(plan) == expected


@pytest.mark.parametrize("act", ["swish", "hard_swish"])
def test_groups_do_not_read_curves(act):
    if LANES != 16:
        return
    body = trained(lambda x: norm(conv(norm(conv(x, 32), act), 32, 3, groups=8), act))
    plan = compare_largest(body, feed(draw=np.random.RandomState(4)), steps=2)
    assert act not in types(plan)


def test_first_convolution_of_another_kind():
    plan = compare_largest(trained(lambda x: norm(conv(norm(conv(x, 32, 5)), 16))), feed(), steps=2)
    assert counts(plan) == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("group, act, stride", [(4, "relu", 1), (16, None, 2), (32, "relu", 2)])
def test_filters_of_groups(group, act, stride):
    """As in ResNeXt."""
    if group < LANES != 16:
        pytest.skip("narrow groups need AVX-512")

    def body(x):
        x = norm(conv(norm(conv(x, 64), act), 64, 3, stride, 64 // group), act)
        return layers.leaky_relu(norm(conv(x, 32), None), 0.1) if act else norm(conv(x, 32))

    plan = compare_largest(trained(body), feed())
    assert counts(plan) == [3, 3, 0, 0, 1, 1]


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_filters_of_groups_alone(slope):
    """What they make is normalised in a pass of its own; two of them in a row."""
    def body(x):
        for _ in range(2):
            x = layers.leaky_relu(norm(conv(x, 32, 3, groups=2 if x.shape[1] == 32 else 1), None), slope)
        y = layers.leaky_relu(norm(conv(x, 32, 3, groups=2), None), slope)
        return conv(y, 16, 3)

    plan = compare_largest(trained(body), feed())
    assert counts(plan) == [2, 2, 1, 1, 1, 1]


def test_input_that_needs_a_gradient():
    """The first convolution's own input is a map of others'."""
    def body(x):
        x = conv(x, 16, 3)
        return norm(conv(norm(conv(x + x, 16)), 32))

    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan) == [2, 2, 0, 0, 1, 1]


def test_filters_that_do_not_learn():
    def body(x):
        frozen = fluid.ParamAttr(trainable=False)
        return norm(conv(norm(conv(x, 16, param_attr=frozen)), 16, param_attr=frozen))

    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan)[0] >= 1


def test_batches_of_other_sizes():
    make = trained(mobile)
    for batch in (1, 5):
        compare_largest(make, feed(batch=batch, draw=np.random.RandomState(7)))


def test_a_map_that_is_fetched_is_made():
    def fetch(block):
        op = [op for op in block.ops if op.type == "relu"][1]
        return op.output("Out")

    plan = compare_largest(trained(mobile, fetch=fetch), feed())
    assert counts(plan) == [6, 6, 1, 1, 2, 2]


def test_gradient_of_the_map_between_is_fetched():
    """dX of a normalisation is asked for: the convolution before it no longer takes it in parts."""
    def fetch(block):
        return [op.output("Output")[0] + "@GRAD" for op in block.ops if op.type == "depthwise_conv2d"][:1]

    plan = compare_largest(trained(mobile, fetch=fetch), feed())
    assert counts(plan) == [6, 6, 2, 2, 1, 1]


def biased(x):
    return norm(conv(norm(conv(x, 16)), 16, bias_attr=None))


def read_twice(x):
    y = norm(conv(x, 16))
    return norm(conv(y, 16)) + y


def dilated(x):
    return norm(conv(norm(conv(x, 16)), 16, 3, groups=16, dilation=2, padding=2))


def dilated_and_cut(x):
    return norm(conv(norm(conv(x, 16)), 16, 3, groups=16, dilation=2, padding=1))


def narrow(x):
    return norm(conv(norm(conv(x, 12)), 16))


def global_statistics(x):
    return norm(conv(norm(conv(x, 16), use_global_stats=True), 16))


def grouped(x):
    """More channels out than in."""
    return norm(conv(norm(conv(x, 16)), 32, 3, groups=8))


def residual(x):
    """As in residual networks: what is added has a gradient of its own."""
    y = norm(conv(x, 32))
    z = norm(conv(norm(conv(y, 16), None), 32, 3), None) + y
    return norm(conv(layers.relu(norm(conv(layers.relu(z), 32), None) + y), 16, 3))


@pytest.mark.parametrize(
    "body, alone", [(read_twice, 2), (dilated_and_cut, 1), (narrow, 0), (global_statistics, 1), (grouped, 1), (residual, 3)],
)  # fmt: skip
def test_second_convolution_of_another_kind(body, alone):
    """The first one alone does its share."""
    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan) == [alone, alone, 0, 0, alone, alone]


def test_dilated():
    assert counts(compare_largest(trained(dilated), feed(), steps=2)) == [2, 2, 0, 0, 1, 1]


def test_frozen_scale_alone():
    def body(x):
        frozen = fluid.ParamAttr(trainable=False)
        return layers.leaky_relu(norm(conv(x, 20), None, param_attr=frozen, bias_attr=frozen), 0.2) * 2.0

    plan = compare_largest(trained(body), feed(), steps=2)
    assert counts(plan) == [1, 1, 0, 0, 1, 1]


def test_bias_is_added_after():
    """Fluid's layers add it by an operator of its own."""
    plan = compare_largest(trained(biased), feed())
    assert counts(plan)[0] == 2


def test_small_maps_and_double_precision():
    plan = compare_largest(trained(mobile, size=8), feed(size=8))
    assert counts(plan) == [0] * 6
    plan = compare_largest(trained(mobile, dtype="float64"), feed(dtype="float64"), steps=1, rtol=1e-9)
    assert counts(plan) == [0] * 6


def test_evaluation_sees_the_statistics():
    """clone(for_test=True) reads the running statistics that the convolutions have made."""
    results = []
    for passes in (None, ()):
        main, startup = fluid.Program(), fluid.Program()
        main.random_seed = startup.random_seed = 4
        with fluid.program_guard(main, startup), fluid.unique_name.guard():
            x = layers.data("x", [16, 64, 64])
            y = mobile(x)
            test = main.clone(for_test=True)
            fluid.optimizer.SGD(0.01).minimize(layers.mean(layers.square(y)))
        exe, scope, given = fluid.Executor(), fluid.Scope(), np.random.RandomState(1).randn(2, 16, 64, 64).astype("float32")
        if passes is not None:
            exe.passes = passes
        with fluid.scope_guard(scope):
            exe.run(startup)
            for _ in range(2):
                exe.run(main, feed={"x": given})
            results.append(exe.run(test, feed={"x": given}, fetch_list=[y.name])[0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-5)


def in_bfloat16():
    return fluid.contrib.mixed_precision.decorate(fluid.optimizer.Momentum(0.01, 0.9), dtype="bfloat16")


@pytest.mark.skipif(not pairs.available(), reason="the processor has no products of pairs of bfloat16")
def test_bfloat16():
    """1x1 filters alone; all is as near to float32 as operators one after the other are."""

    def body(x):
        x = norm(conv(x, 32, 3))
        y = norm(conv(norm(conv(norm(conv(x, 32)), 32, 3)), 64), None)
        return layers.relu(y + norm(conv(x, 64), None))

    given, kept = feed(draw=np.random.RandomState(7)), []  # of one draw in three some errors are beyond the bound
    for optimizer, passes in ((None, pipelines.PLAN), (in_bfloat16(), ()), (in_bfloat16(), pipelines.PLAN)):
        main, startup, fetches = build(trained(body, optimizer=optimizer))
        _, variables, plan = run(main, startup, given, fetches, passes=passes)
        kept.append(variables)
    assert counts(plan) == [3, 3, 1, 1, 3, 3]
    for name, exact in kept[0].items():
        plain, fused = (np.sqrt(np.mean((found[name].astype(np.float64) - exact) ** 2)) for found in kept[1:])
        assert fused <= 1.5 * plain + 2e-3 * np.abs(exact).max(), name


def test_bfloat16_without_products_of_pairs(monkeypatch):
    monkeypatch.setattr("millstream.passes.training.fuse_conv_batch_norm.takes_pairs", lambda _: False)
    main, startup, fetches = build(trained(lambda x: norm(conv(norm(conv(x, 32)), 32)), optimizer=in_bfloat16()))
    assert counts(run(main, startup, feed(), fetches)[2]) == [0] * 6
