"""Losses whose inputs are fed in other shapes than declared: what 1.8.5 takes is taken, nothing is spread in silence."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid import layers

_LOSSES = {
    "sigmoid_cross_entropy": layers.sigmoid_cross_entropy_with_logits,
    "log_loss": layers.log_loss,
    "huber_loss": lambda x, y: layers.huber_loss(x, y, 1.0),
    "smooth_l1": layers.smooth_l1,
    "kldiv_loss": lambda x, y: layers.kldiv_loss(x, y, "none"),
    "margin_rank_loss": lambda x, y: layers.margin_rank_loss(y, x, x),
    "rank_loss": lambda x, y: layers.rank_loss(y, x, x),
    "teacher_student": layers.teacher_student_sigmoid_loss,
}


@pytest.fixture
def exe():
    with (
        fluid.scope_guard(fluid.Scope()),
        fluid.program_guard(fluid.Program(), fluid.Program()),
        fluid.unique_name.guard(),
    ):
        yield fluid.Executor(fluid.CPUPlace())


@pytest.mark.parametrize("shape", [(1, 1), (2,), (2, 2), (2, 1, 1)])
@pytest.mark.parametrize("name", _LOSSES)
def test_a_label_of_another_shape_is_refused(name, shape, exe):
    x, y = layers.data("x", [1]), layers.data("y", [1])
    out = _LOSSES[name](x, y)
    feed = {"x": np.full((2, 1), 0.3, "float32"), "y": np.full(shape, 0.5, "float32")}
    if name == "rank_loss" and shape == (2,):
        assert exe.run(feed=feed, fetch_list=[out])[0].shape == shape
        return
    with pytest.raises(fluid.core.EnforceNotMet, match=r"one shape|rank"):
        exe.run(feed=feed, fetch_list=[out])


@pytest.mark.parametrize("classes", [3, 20_000])  # so many that the kernels take them
@pytest.mark.parametrize("fused", [True, False])
def test_labels_without_their_last_dim(classes, fused, exe):
    """A label is fed as [batch] for [-1, 1]: cross_entropy takes it, and so do its gradient and what is fused with it."""
    x, y = fluid.data("x", [None, classes]), fluid.data("y", [None, 1], "int64")
    x.stop_gradient = False
    y_loss = layers.cross_entropy(layers.softmax(x), y)
    loss = layers.mean(y_loss)
    (dx,) = fluid.gradients(loss, x)
    if not fused:
        exe.passes = ()
    scores = np.random.rand(2, classes).astype("float32")
    label = np.array([2, 0])
    column = exe.run(feed={"x": scores, "y": label[:, None]}, fetch_list=[y_loss, dx, loss])
    flat = exe.run(feed={"x": scores, "y": label}, fetch_list=[y_loss, dx, loss])
    assert flat[0].shape == (2,)
    for a, b in zip(column, flat):
        np.testing.assert_allclose(b.reshape(a.shape), a, rtol=1e-6)


@pytest.mark.parametrize("classes", [3, 20_000])
@pytest.mark.parametrize("kind", ["cross_entropy", "softmax_with_cross_entropy", "bpr_loss"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (2, 2)])
def test_as_many_labels_as_rows(kind, shape, classes, exe):
    x, y = layers.data("x", [classes]), layers.data("y", [1], dtype="int64")
    out = getattr(layers, kind)(layers.softmax(x) if kind == "cross_entropy" else x, y)
    with pytest.raises(fluid.core.EnforceNotMet, match="hard labels"):
        exe.run(feed={"x": np.zeros((2, classes), "float32"), "y": np.zeros(shape, "int64")}, fetch_list=[out])


def test_a_label_outside_is_named(exe):
    x, y = layers.data("x", [3]), layers.data("y", [1], dtype="int64")
    out = layers.softmax_with_cross_entropy(x, y)
    with pytest.raises(fluid.core.EnforceNotMet, match=r"from 0 to 2 .* received 7"):
        exe.run(feed={"x": np.zeros((2, 3), "float32"), "y": np.array([[1], [7]])}, fetch_list=[out])


@pytest.mark.parametrize(
    "declared, fed, taken",
    [
        ([None, 1], (2,), True),
        ([None, 2, 1], (3, 2), True),
        ([None, 2, 1], (3, 1), False),
        ([4, 1], (4,), True),
        ([4, 1], (2,), False),
        ([None, 1], (2, 1, 1), False),
        ([None, 1], (), False),
    ],
)
def test_feeds_with_fewer_dims(declared, fed, taken, exe):
    """As in 1.8.5, the dims that are there must be the first ones declared."""
    out = layers.scale(fluid.data("x", declared), 2.0)
    feed = {"x": np.ones(fed, "float32")}
    if taken:
        assert exe.run(feed=feed, fetch_list=[out])[0].shape == fed
    else:
        with pytest.raises(ValueError, match="feed x"):
            exe.run(feed=feed, fetch_list=[out])


def test_an_outside_weight_alone_has_no_effect(exe):
    """As in 1.8.5; smooth_l1 takes its weights together."""
    x, y = fluid.data("x", [2, 3]), fluid.data("y", [2, 3])
    x.stop_gradient = False
    weight = layers.fill_constant([2, 3], "float32", 7.0)
    plain, other = layers.smooth_l1(x, y, sigma=1.5), layers.smooth_l1(x, y, outside_weight=weight, sigma=1.5)
    slopes = [fluid.gradients(out, x)[0] for out in (plain, other)]
    feed = {"x": np.arange(6, dtype="float32").reshape(2, 3), "y": np.ones((2, 3), "float32")}
    a, b, da, db = exe.run(feed=feed, fetch_list=[plain, other, *slopes])
    np.testing.assert_allclose(a, [[1.5556], [8.3333]], rtol=1e-4)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(da, db)
