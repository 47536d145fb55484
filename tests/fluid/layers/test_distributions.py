"""Distributions against their closed forms."""

import math

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers


def values(build, **feed):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = 7
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        made = {n: fluid.data(n, [None, *v.shape[1:]], str(v.dtype)) for n, v in feed.items()}
        outs = build(**made)
        return fluid.Executor(fluid.CPUPlace()).run(main, feed=feed, fetch_list=list(outs))


def test_uniform():
    draw, entropy, inside, outside = values(
        lambda: (
            (u := L.Uniform(2.0, 6.0)).sample([1000]),
            u.entropy(),
            u.log_prob(L.fill_constant([1], "float32", 3.0)),
            u.log_prob(L.fill_constant([1], "float32", 7.0)),
        )
    )
    assert draw.shape == (1000,)
    assert draw.min() >= 2.0
    assert draw.max() < 6.0
    assert abs(draw.mean() - 4.0) < 0.2
    assert entropy == pytest.approx(math.log(4.0), rel=1e-5)
    assert inside == pytest.approx(-math.log(4.0), rel=1e-5)
    assert np.isneginf(outside)


def test_normal():
    draw, entropy, density, distance = values(
        lambda: (
            (n := L.Normal(1.0, 2.0)).sample([2000]),
            n.entropy(),
            n.log_prob(L.fill_constant([1], "float32", 3.0)),
            n.kl_divergence(L.Normal(0.0, 1.0)),
        )
    )
    assert abs(draw.mean() - 1.0) < 0.2
    assert abs(draw.std() - 2.0) < 0.2
    assert entropy == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 4.0), rel=1e-5)
    assert density == pytest.approx(-0.5 - math.log(2.0) - 0.5 * math.log(2 * math.pi), rel=1e-5)
    assert distance == pytest.approx(0.5 * (4.0 + 1.0 - 1.0 - math.log(4.0)), rel=1e-5)


def test_samples_of_variable_parameters_keep_their_places():
    loc = np.array([[0.0, 100.0], [200.0, 300.0], [400.0, 500.0]], "float32")
    (draw,) = values(lambda loc, scale: [L.Normal(loc, scale).sample([4])], loc=loc, scale=np.ones((3, 2), "float32"))
    assert draw.shape == (4, 3, 2)
    assert np.abs(draw - loc).max() < 10


def test_categorical():
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], "float32")
    others = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 2.0]], "float32")
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = np.exp(others) / np.exp(others).sum(1, keepdims=True)
    entropy, distance = values(
        lambda a, b: (L.Categorical(a).entropy(), L.Categorical(a).kl_divergence(L.Categorical(b))), a=logits, b=others
    )
    np.testing.assert_allclose(entropy, -(p * np.log(p)).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(distance, (p * np.log(p / q)).sum(1, keepdims=True), rtol=1e-4)


def test_multivariate_normal():
    loc, scale = np.array([[0.3, 0.5]] * 2, "float32"), np.diag([0.4, 0.5]).astype("float32")
    other_loc, other = np.array([0.2, 0.4], "float32"), np.diag([0.3, 0.4]).astype("float32")

    def build():
        mine = L.MultivariateNormalDiag(L.assign(loc[0]), L.assign(scale))
        others = L.MultivariateNormalDiag(L.assign(other_loc), L.assign(other))
        return mine.entropy(), mine.kl_divergence(others)

    entropy, distance = values(build)
    away = other_loc - loc[0]
    want = 0.5 * (0.4 / 0.3 + 0.5 / 0.4 + away @ np.linalg.inv(other) @ away - 2 + math.log(0.3 * 0.4 / (0.4 * 0.5)))
    assert entropy == pytest.approx(0.5 * (2 * (1 + math.log(2 * math.pi)) + math.log(0.2)), rel=1e-5)
    assert distance == pytest.approx(want, rel=1e-4)


def test_wrong_parameters():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        x = fluid.data("x", [None, 2])
        with pytest.raises(ValueError, match="all must be"):
            L.Normal(x, 1.0)
        with pytest.raises(TypeError, match="'loc'"):
            L.Normal("a", 1.0)
        with pytest.raises(TypeError, match="must be a Normal"):
            L.Normal(0.0, 1.0).kl_divergence(L.Uniform(0.0, 1.0))
