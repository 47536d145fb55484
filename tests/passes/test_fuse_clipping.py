"""fuse_clipping: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
import torch
from pass_programs import build, compare, run, types

import millstream.fluid as fluid
from millstream.ops import REGISTRY

RNG = np.random.RandomState(13)
FEED = {"x": RNG.randn(8, 6), "w": RNG.randint(0, 9, (8, 1))}
MADE = {"global_norm_factor", "scale_gradients", "clip_gradients", "clip_gradients_by_norm"}


def network(sparse=False, dtype="float64"):
    h = fluid.data("x", [None, 6], dtype)
    if sparse:
        word = fluid.layers.embedding(fluid.data("w", [None, 1], "int64"), [9, 6], is_sparse=True, dtype=dtype)
        h = fluid.layers.elementwise_add(h, word)
    for size in (16, 5, 1):
        h = fluid.layers.fc(h, size, act="tanh")
    return fluid.layers.mean(fluid.layers.square(h - 3.0))


CLIPS = {
    "global": fluid.clip.GradientClipByGlobalNorm, "norm": fluid.clip.GradientClipByNorm,
    "value": fluid.clip.GradientClipByValue,
}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("limit", [0.02, 0.3, 100.0])
@pytest.mark.parametrize("kind", sorted(CLIPS))
def test_training_stays(kind, limit, sparse):
    def make():
        loss = network(sparse)
        decay = fluid.regularizer.L2Decay(0.1)
        fluid.optimizer.Momentum(0.1, 0.9, regularization=decay, grad_clip=CLIPS[kind](limit)).minimize(loss)
        return [loss]

    feed = FEED if sparse else {"x": FEED["x"]}
    found = types(compare(make, feed, steps=4, rtol=1e-9, atol=1e-11))
    assert MADE & set(found)
    assert found.count("square") == 1  # the loss
    assert found.count("clip") + found.count("clip_by_norm") == int(sparse and kind != "global")


def test_single_precision():
    def make():
        loss = network(dtype="float32")
        fluid.optimizer.Adam(0.01, epsilon=1e-3, grad_clip=CLIPS["global"](0.1)).minimize(loss)
        return [loss]

    compare(make, {"x": FEED["x"].astype("float32")}, steps=3, rtol=1e-5, atol=1e-6)


def test_groups_of_set_gradient_clip():
    def make():
        loss = network()
        params = fluid.default_main_program().global_block().all_parameters()
        for k, chosen in enumerate((params[:2], params[2:])):
            fluid.clip.set_gradient_clip(CLIPS["global"](0.1 + k, group_name=f"g{k}"), chosen)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    found = types(compare(make, {"x": FEED["x"]}, steps=3, rtol=1e-9, atol=1e-11))
    assert found.count("global_norm_factor") == found.count("scale_gradients") == 2


def test_gradients_that_are_fetched():
    """Clipped ones are still there; a norm that is fetched keeps its operators."""

    def make():
        loss = network()
        fluid.optimizer.SGD(0.1, grad_clip=CLIPS["global"](0.1)).minimize(loss)
        ops = fluid.default_main_program().global_block().ops
        scaled = [op.output("Out")[0] for op in ops if op.type == "elementwise_mul"]
        norm = [op.output("Out")[0] for op in ops if op.type == "sqrt"]
        return [loss, *scaled, *(norm if seen else [])]

    for seen in (False, True):
        found = types(compare(make, {"x": FEED["x"]}, steps=3, rtol=1e-9, atol=1e-11))
        assert ("global_norm_factor" in found) != seen


def test_the_users_own_clips_stay():
    """Forward operators of the same types are none of this pass's business."""
    main, startup, fetches = build(
        lambda: [fluid.layers.clip(fluid.layers.clip(fluid.data("x", [None, 6], "float64"), -1.0, 1.0), -1.0, 1.0)]
    )
    assert types(run(main, startup, {"x": FEED["x"]}, fetches)[2]).count("clip") == 2


def test_what_is_below_the_limit_is_handed_on():
    xs = [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.6, 0.8]])]
    assert REGISTRY.get("clip_gradients_by_norm").kernel(xs, max_norm=6.0) is xs
    clipped = REGISTRY.get("clip_gradients_by_norm").kernel(xs, max_norm=2.5)
    assert clipped[1] is xs[1] and clipped[0].tolist() == [[1.5, 2.0]] and xs[0].tolist() == [[3.0, 4.0]]
    factor = REGISTRY.get("global_norm_factor").kernel(xs, [], clip_norm="9.0")
    assert factor.tolist() == [1.0] and REGISTRY.get("scale_gradients").kernel(xs, factor) is xs
