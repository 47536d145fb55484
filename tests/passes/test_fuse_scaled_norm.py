"""fuse_scaled_norm, fuse_added_gradient, fuse_summed_gradient: training steps with and without, and where they stay away."""

import numpy as np
import pytest
from pass_programs import build, compare_largest, run, types

import millstream.fluid as fluid
from millstream.kernels import pairs
from millstream.passes import pipelines

RNG = np.random.RandomState(7)
FUSED = ["batch_norm_average", "scaled_batch_norm", "scaled_batch_norm_sums", "scaled_batch_norm_line_grad"]
layers = fluid.layers


def counts(plan):
    found = types(plan)
    return [found.count(t) for t in FUSED]


def added(plan):
    """How many convolutions' gradients begin with another gradient."""
    return sum(bool(op.input("Added")) for op in plan.work.block.ops)


def summed(plan):
    """How many of them go on through the relu of a sum."""
    return sum(bool(op.input("Summed")) for op in plan.work.block.ops)


def conv(x, filters, size=1, stride=1, act=None, groups=1):
    out = layers.conv2d(x, filters, size, stride=stride, padding=size // 2, groups=groups, bias_attr=False)
    return layers.batch_norm(out, act=act)


def mean(y):
    return layers.pool2d(y, pool_type="avg", global_pooling=True)


def excite(y, of=None, spread=False, squeeze=mean):
    c = y.shape[1]
    scale = layers.fc(layers.fc(squeeze(y if of is None else of), 8, act="relu"), c, act="sigmoid")
    if spread:
        return layers.elementwise_mul(y, layers.reshape(scale, [-1, c, 1, 1]))
    return layers.elementwise_mul(y, scale, axis=0)


def block(x, project, last=excite, turned=False, filters=32):
    y = last(conv(conv(x, filters, act="relu"), 2 * filters))
    short = conv(x, 2 * filters) if project else x
    return layers.elementwise_add(*((y, short) if turned else (short, y)), act="relu")


def trained(body, channels=16, size=(47, 49), optimizer=True):
    def make():
        x = fluid.data("x", [None, channels, *size], "float32")
        found = body(x)
        y, *seen = found if isinstance(found, tuple) else (found,)
        loss = layers.mean(layers.square(y))
        if optimizer:
            fluid.optimizer.Momentum(0.01, 0.9).minimize(loss)
        return [loss, *seen]

    return make


def feed(batch=3, channels=16, size=(47, 49)):
    return {"x": RNG.randn(batch, channels, *size).astype("float32")}


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_training_stays(spread, turned):
    def body(x):
        for project in (True, False, False):
            x = block(x, project, lambda y: excite(y, spread=spread), turned)
        return x

    plan = compare_largest(trained(body), feed())
    assert counts(plan) == [3] * 4 and added(plan) == 2
    assert not {"sum", "pool2d", "pool2d_grad", "elementwise_mul", "scaled_sum_relu"} & set(types(plan))


def test_batches_of_other_sizes():
    make = trained(lambda x: block(block(x, True), False))
    for batch in (2, 5):
        assert counts(compare_largest(make, feed(batch))) == [2] * 4


def test_an_adaptive_pool_of_one_number():
    def pool(y):
        return layers.adaptive_pool2d(y, 1, "avg")

    plan = compare_largest(trained(lambda x: block(x, True, lambda y: excite(y, squeeze=pool))), feed())
    assert counts(plan) == [1] * 4


def test_factor_that_does_not_learn():
    """What is made of the mean has no gradient: the normalisation has one reader in the backward pass."""
    def last(y):
        scale = layers.fc(mean(y), y.shape[1], act="sigmoid")
        scale.stop_gradient = True
        return layers.elementwise_mul(y, scale, axis=0)

    assert counts(compare_largest(trained(lambda x: block(x, True, last)), feed())) == [0] * 4


@pytest.mark.parametrize("pool", [
    lambda y: layers.pool2d(y, pool_type="max", global_pooling=True), lambda y: layers.adaptive_pool2d(y, [1, 2], "avg"),
])  # fmt: skip
def test_another_pool_stays(pool):
    assert counts(compare_largest(trained(lambda x: block(x, True, lambda y: excite(y, squeeze=pool))), feed())) == [0] * 4


def test_mean_of_another_map_stays():
    def body(x):
        y = conv(conv(x, 16, act="relu"), 32)
        return layers.relu(excite(y, of=layers.relu(y)))

    assert counts(compare_largest(trained(body), feed())) == [0] * 4


def test_a_third_reader_stays():
    def last(y):
        return excite(y) + layers.tanh(y)

    assert counts(compare_largest(trained(lambda x: block(x, True, last)), feed())) == [0] * 4


def test_a_map_that_is_fetched_stays():
    def body(x):
        y = conv(conv(x, 16, act="relu"), 32)
        return layers.relu(excite(y)), y

    assert counts(compare_largest(trained(body), feed())) == [0] * 4


def test_a_mean_that_is_fetched_is_made():
    def body(x):
        y, seen = conv(conv(x, 16, act="relu"), 32), []
        out = layers.relu(excite(y, squeeze=lambda y: seen.append(mean(y)) or seen[0]))
        return out, *seen

    assert counts(compare_largest(trained(body), feed())) == [1] * 4


def test_depthwise_convolutions_before_it_stay():
    def body(x):
        y = conv(x, 32, act="relu")
        out = layers.conv2d(y, 32, 3, padding=1, groups=32, bias_attr=False, use_cudnn=False)
        return layers.relu(excite(layers.batch_norm(out)))

    plan = compare_largest(trained(body), feed())
    assert counts(plan) == [0] * 4 and "is not 1x1" in plan.work.explain()


def test_small_maps_and_inference_stay():
    assert counts(compare_largest(trained(lambda x: block(x, True), size=(9, 9)), feed(size=(9, 9)))) == [0] * 4
    assert counts(compare_largest(trained(lambda x: block(x, True), optimizer=False), feed())) == [0] * 4


def plain(y):
    return y


def test_gradients_of_residual_blocks_are_added():
    def body(x):
        for project in (True, False, False):
            x = block(x, project, plain)
        return x

    plan = compare_largest(trained(body), feed())
    assert (added(plan), summed(plan)) == (2, 2) and "sum" not in types(plan)
    assert types(plan).count("batch_norm_line_grad") == 2  # of the last block, and of the first one's shortcut


@pytest.mark.skipif(not pairs.available(), reason="the processor has no products of pairs of bfloat16")
def test_gradients_through_the_relu_of_a_sum_in_bfloat16():
    """Each number is rounded as by the operators that are gone; only sums over a map are of another order."""

    def make():
        y = block(block(block(fluid.data("x", [None, 32, 47, 49]), True, plain), False, plain), False, plain)
        loss = layers.mean(layers.square(y))
        fluid.contrib.mixed_precision.decorate(fluid.optimizer.SGD(0.01), dtype="bfloat16").minimize(loss)
        return [loss]

    given, kept = feed(channels=32), []
    for passes in (tuple(p for p in pipelines.PLAN if p != "fuse_summed_gradient"), pipelines.PLAN):
        main, startup, fetches = build(make)
        _, variables, plan = run(main, startup, given, fetches, passes=passes)
        kept.append(variables)
    assert (added(plan), summed(plan)) == (2, 2)
    for name, plain_values in kept[0].items():
        np.testing.assert_allclose(kept[1][name], plain_values, rtol=0, atol=1e-4 * np.abs(plain_values).max(), err_msg=name)


def test_gradient_behind_a_relu_that_is_fetched_stays():
    def make():
        first = trained(lambda x: block(block(x, True, plain), False, plain))()
        block_ = fluid.default_main_program().global_block()
        return [*first, *(op.output("Out")[0] for op in block_.ops if op.type == "sum")][:2]

    plan = compare_largest(make, feed())
    assert (added(plan), summed(plan)) == (1, 0)


def test_a_relu_that_is_changed_stays():
    """What the convolution reads is not the relu's output."""
    def body(x):
        y = block(x, True, plain)
        z = conv(layers.scale(y, 2.0), 32, act="relu")
        return layers.relu(conv(z, 64) + y)

    assert summed(compare_largest(trained(body), feed())) == 0


def test_a_sum_that_is_fetched():
    def make():
        first = trained(lambda x: block(block(x, True, plain), False, plain))()
        block_ = fluid.default_main_program().global_block()
        return [*first, *(op.output("Out")[0] for op in block_.ops if op.type == "sum")][:2]

    assert added(compare_largest(make, feed())) == 1


def test_a_part_of_the_sum_that_is_fetched_stays():
    def make():
        first = trained(lambda x: block(block(x, True, plain), False, plain))()
        block_ = fluid.default_main_program().global_block()
        return [*first, *(n for op in block_.ops if op.type == "sum" for n in op.input("X"))]

    plan = compare_largest(make, feed())
    assert added(plan) == 0 and "sum" in types(plan)


def test_three_gradients_stay():
    def body(x):
        y = block(x, True, plain)
        return layers.relu(conv(y, 64) + conv(y, 64) + y)

    assert added(compare_largest(trained(body), feed())) == 0
