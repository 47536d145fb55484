"""fuse_softmax_cross_entropy, fold_loss_gradient, take_loss_gradient_ahead: steps with and without, where they stay away."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(11)
FEED = {"x": RNG.randn(8, 6), "label": RNG.randint(0, 5, (8, 1)).astype("int64")}
FUSED = ["softmax_cross_entropy", "softmax_cross_entropy_grad"]


def scores():
    x, label = fluid.data("x", [None, 6], "float64"), fluid.data("label", [None, 1], "int64")
    return fluid.layers.fc(x, 5, act="softmax"), label


def trained(losses, seen=()):
    loss = fluid.layers.mean(losses)
    fluid.optimizer.SGD(0.5).minimize(loss)
    return [loss, *seen]


@pytest.mark.parametrize("ignore", [-100, 2, 255])
def test_training_stays(ignore):
    def make():
        p, label = scores()
        losses = fluid.layers.cross_entropy(p, label, ignore_index=ignore)
        # accuracy does not take labels that are out of range
        return trained(losses, [p, losses, *([fluid.layers.accuracy(p, label)] if ignore != 255 else [])])

    feed = dict(FEED)
    if ignore == 255:
        feed["label"] = np.where(np.arange(8)[:, None] % 3 == 0, 255, FEED["label"])
    found = types(compare(make, feed, steps=3, rtol=1e-9, atol=1e-11))
    assert [found.count(t) for t in FUSED] == [1, 1]
    assert not {"softmax", "softmax_grad", "fill_constant", "mean_grad"} & set(found)


def test_the_older_operator():
    def make():
        p, label = scores()
        block = fluid.default_main_program().global_block()
        losses = block.create_var(name="losses", dtype="float64")
        block.append_op("cross_entropy", {"X": p, "Label": label}, {"Y": losses}, {"soft_label": False})
        return trained(losses)

    found = types(compare(make, FEED, steps=3, rtol=1e-9, atol=1e-11))
    assert found.count("softmax_cross_entropy_ahead") == 1 and not set(FUSED) & set(found)


@pytest.mark.parametrize("ignore", [-100, 2])
@pytest.mark.parametrize(("rows", "classes"), [(8, 5), (40, 2), (40, 1000)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_with_the_loss(ignore, rows, classes, dtype):
    import numba  # noqa: F401  where it is loaded float32 is our kernel's

    def make():
        x, label = fluid.data("x", [None, 6], dtype), fluid.data("label", [None, 1], "int64")
        p = fluid.layers.softmax(fluid.layers.scale(fluid.layers.fc(x, classes), 1.5))  # a layer is part of classify_ahead
        losses = fluid.layers.cross_entropy(p, label, ignore_index=ignore)
        return trained(losses, [losses])

    given = {"x": RNG.randn(rows, 6).astype(dtype), "label": RNG.randint(0, min(classes, 5), (rows, 1))}
    if ignore > 0:
        given["label"][3:5] = ignore
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 2e-5, "atol": 1e-6}
    found = types(compare(make, given, steps=3, **tolerance))
    assert found.count("softmax_cross_entropy_ahead") == 1
    assert not {*FUSED, "mean_grad_of_constant", "mean_grad", "fill_constant"} & set(found)


def test_what_keeps_the_gradient_behind_the_loss():
    """The scores' gradient is fetched: still taken ahead; a weight on each loss; the label overwritten in between."""

    def weighted():
        p, label = scores()
        return trained(fluid.layers.cross_entropy(p, label) * 2.0)

    def overwritten():
        p, label = scores()
        losses = fluid.layers.cross_entropy(p, label)
        fluid.layers.assign(fluid.layers.zeros_like(label), label)
        return trained(losses)

    for make in (weighted, overwritten):
        assert "softmax_cross_entropy_ahead" not in types(compare(make, FEED, steps=2, rtol=1e-9, atol=1e-11))

    def fetched():
        p, label = scores()
        name = p.block.ops[-1].input("X")[0]
        return trained(fluid.layers.cross_entropy(p, label), [name + "@GRAD"])

    assert "softmax_cross_entropy_ahead" in types(compare(fetched, FEED, steps=2, rtol=1e-9, atol=1e-11))


def test_a_label_out_of_range():
    main, startup, fetches = build(lambda: trained(fluid.layers.cross_entropy(*scores())))
    with pytest.raises(Exception, match="test_fuse_softmax_cross_entropy"):
        run(main, startup, {**FEED, "label": np.full((8, 1), 7, "int64")}, fetches)


def _soft():
    x, y = fluid.data("x", [None, 6], "float64"), fluid.data("y", [None, 5], "float64")
    return trained(fluid.layers.cross_entropy(fluid.layers.fc(x, 5, act="softmax"), y, soft_label=True))


def _two_losses():
    p, label = scores()
    return trained(fluid.layers.cross_entropy(p, label) + fluid.layers.reduce_sum(fluid.layers.square(p), 1, True))


def _fetched():
    p, label = scores()
    return trained(fluid.layers.cross_entropy(p, label), [p.name + "@GRAD"])


@pytest.mark.parametrize("make", [_soft, _two_losses, _fetched])
def test_places_that_stay(make):
    feed = {**FEED, "y": RNG.rand(8, 5)}
    feed = {k: v for k, v in feed.items() if (k == "y") == (make is _soft) or k == "x"}
    found = types(compare(make, feed, steps=2, rtol=1e-9, atol=1e-11))
    assert not set(FUSED) & set(found)


def test_a_loss_gradient_that_is_seen():
    def make():
        p, label = scores()
        loss = fluid.layers.mean(fluid.layers.cross_entropy(p, label))
        fluid.optimizer.SGD(0.5).minimize(loss)
        return [loss, loss.name + "@GRAD"]

    found = types(compare(make, FEED, steps=2, rtol=1e-9, atol=1e-11))
    assert "fill_constant" in found and "mean_grad" in found


def test_batches_of_changing_size():
    def make():
        p, label = scores()
        return trained(fluid.layers.cross_entropy(p, label))

    main, startup, fetches = build(make)
    values = []
    for passes in ((), fluid.Executor().passes):
        exe, scope = fluid.Executor(), fluid.Scope()
        exe.passes = passes
        with fluid.scope_guard(scope):
            exe.run(startup)
            values.append([exe.run(main, {k: v[:n] for k, v in FEED.items()}, fetches)[0] for n in (8, 3, 5, 8)])
    np.testing.assert_allclose(values[1], values[0], 1e-9)


@pytest.mark.parametrize("ignore", [-100, 2, 4000])
@pytest.mark.parametrize("shape", [(40, 1000), (4, 11, 1000)])
def test_many_classes(ignore, shape):
    """The compiled kernel, whose scores may be cut (64 below the greatest), against torch's."""
    import numba  # noqa: F401  where it is not loaded torch computes them

    rng = np.random.RandomState(3)
    scores = rng.randn(*shape).astype("float32") * 3
    scores[0, ..., :2] = -200
    label = rng.randint(0, 1000, (*shape[:-1], 1))
    label[-1] = ignore if ignore > 0 else 5

    def make():
        x, label = fluid.data("x", [None, *shape[1:]]), fluid.data("label", [None, *shape[1:-1], 1], "int64")
        x.stop_gradient = False
        p = fluid.layers.softmax(x)
        losses = fluid.layers.cross_entropy(p, label, ignore_index=ignore)
        loss = fluid.layers.mean(losses)
        fluid.backward.append_backward(loss)
        return [loss, p, losses, loss.block.var("x@GRAD")]

    found = types(compare(make, {"x": scores, "label": label}, rtol=1e-5, atol=1e-7))
    assert [found.count(t) for t in FUSED] == [1, 1]
    label[0] = 1000
    main, startup, fetches = build(make)
    with pytest.raises(Exception, match="test_fuse_softmax_cross_entropy"):
        run(main, startup, {"x": scores, "label": label}, fetches)


def test_scores_that_are_no_numbers():
    import numba  # noqa: F401

    scores = np.zeros((40, 1000), "float32")
    scores[1, 5], scores[2, 6], scores[3] = np.nan, np.inf, -np.inf

    def make():
        x, label = fluid.data("x", [None, 1000]), fluid.data("label", [None, 1], "int64")
        x.stop_gradient = False
        losses = fluid.layers.cross_entropy(fluid.layers.softmax(x), label)
        fluid.backward.append_backward(fluid.layers.mean(losses))
        return [losses, losses.block.var("x@GRAD")]

    compare(make, {"x": scores, "label": np.zeros((40, 1), "int64")}, rtol=1e-5)
