"""fuse_attention_layers: training steps in bfloat16 with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import compare, types

import millstream.fluid as fluid

layers = fluid.layers
RNG = np.random.RandomState(23)
FUSED = ["attention_layer", "attention_layer_grad"]
LEFT = {"softmax", "softmax_grad", "matmul", "matmul_grad"}
HEADS, ROWS, WIDTH = 2, 64, 64
FEED = {
    "x": RNG.randn(4, ROWS, WIDTH).astype("float32"), "mask": np.triu(np.full((ROWS, ROWS), -1e9, "float32"), 1)[None, None],
}  # fmt: skip


def split(x, name):
    x = layers.fc(x, WIDTH, num_flatten_dims=2, bias_attr=False, param_attr=fluid.ParamAttr(name=name))
    return layers.transpose(layers.reshape(x, [0, 0, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])


def attended(mask=None, between=lambda w: w, axis=-1):
    """Self-attention, with `between` around its weights."""

    def build(x):
        q, k, v = (split(x, name) for name in "qkv")
        scores = layers.matmul(q, k, transpose_y=True, alpha=0.2)
        if mask is not None:
            scores = layers.elementwise_add(scores, mask())
        weights = between(layers.softmax(scores, axis=axis))
        joined = layers.transpose(layers.matmul(weights, v), [0, 2, 1, 3])
        return layers.reshape(joined, [0, 0, WIDTH])

    return build


def trained(build, dtype="bfloat16", seen=()):
    def make():
        x = fluid.data("x", [4, ROWS, WIDTH], "float32")
        x.stop_gradient = False
        loss = layers.mean(layers.square(build(x)))
        optimizer = fluid.optimizer.SGD(0.5)
        if dtype == "bfloat16":
            optimizer = fluid.contrib.mixed_precision.decorate(optimizer, dtype=dtype)
        optimizer.minimize(loss)
        return [loss, *(loss.block.var(name) for name in ("q", "k", "v", *seen))]

    return make


def given():
    return fluid.data("mask", [1, 1, ROWS, ROWS], "float32")


@pytest.mark.parametrize("mask", [None, given])
@pytest.mark.parametrize("kernels", [False, True])
def test_training_stays(mask, kernels, monkeypatch):
    feed = FEED if mask else {"x": FEED["x"]}
    if kernels:
        import numba  # noqa: F401  the kernels over heads take such sizes only when it is there
    else:
        from millstream.kernels import attention

        monkeypatch.setattr(attention, "_layer", lambda *_: None)
    found = types(compare(trained(attended(mask)), feed, steps=3, rtol=2e-2, atol=2e-3))
    assert [found.count(t) for t in FUSED] == [1, 1] and not LEFT & set(found)


def test_what_surrounds_it():
    """Two layers that share their input, a scale of the queries, and no gradient of the values."""

    def build(x):
        first = attended(given)(x)
        scaled = layers.scale(split(x, "scaled"), 0.3)
        values = split(x, "stopped")
        values.stop_gradient = True
        weights = layers.softmax(layers.matmul(scaled, split(first, "other"), transpose_y=True))
        return layers.reshape(layers.transpose(layers.matmul(weights, values), [0, 2, 1, 3]), [0, 0, WIDTH])

    found = types(compare(trained(build), FEED, steps=2, rtol=2e-2, atol=2e-3))
    assert [found.count(t) for t in FUSED] == [2, 2]


def learned():
    return layers.create_parameter([1, 1, ROWS, ROWS], "float32", name="bias")


OTHERS = {
    "has a gradient": attended(learned),
    "read the weights": attended(between=lambda w: layers.dropout(w, 0.1, is_test=True)),
    "another axis": attended(axis=2),
}


@pytest.mark.parametrize("why", OTHERS)
def test_what_is_another_attention(why):
    plan = compare(trained(OTHERS[why]), {"x": FEED["x"]}, rtol=2e-2, atol=2e-3)
    assert not set(FUSED) & set(types(plan))
    assert any(why in reason for name, _, reason in plan.work.refused if name == "fuse_attention_layers")


def test_other_types_keep_their_operators():
    found = types(compare(trained(attended(given), "float32"), FEED, rtol=1e-4, atol=1e-6))
    assert not set(FUSED) & set(found) and {"softmax", "softmax_grad"} <= set(found)


def test_weights_that_somebody_fetches():
    def make():
        fetches = trained(attended(given))()
        block = fetches[0].block
        weights = next(op.output("Out")[0] for op in block.ops if op.type == "softmax")
        return [*fetches, block.var(weights)]

    assert not set(FUSED) & set(types(compare(make, FEED, rtol=2e-2, atol=2e-3)))
