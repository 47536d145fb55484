"""classify_ahead: a classifier's end with and without the pass, all its forms, and where it stays away."""

import numba  # noqa: F401  where it is loaded float32 is our kernel's
import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(4)
_PARTS = {"softmax_cross_entropy", "softmax_cross_entropy_ahead", "softmax_with_cross_entropy", "mean_grad_of_constant"}


def feed(rows, classes, width=40):
    return {"x": RNG.randn(rows, width).astype("float32"), "label": RNG.randint(0, classes, (rows, 1)).astype("int64")}


def network(classes, act="relu", with_logits=False, hidden=24, ignore=-100, seen=None, rate=0.5):
    x, label = fluid.data("x", [None, 40], "float32"), fluid.data("label", [None, 1], "int64")
    h = fluid.layers.fc(x, hidden, act=act) if hidden else x
    scores = fluid.layers.fc(h, classes, act=None if with_logits else "softmax")
    if with_logits:
        losses, p = fluid.layers.softmax_with_cross_entropy(scores, label, ignore_index=ignore, return_softmax=True)
    else:
        losses, p = fluid.layers.cross_entropy(scores, label, ignore_index=ignore), scores
    loss = fluid.layers.mean(losses)
    fluid.optimizer.SGD(rate).minimize(loss)
    return [loss, *(seen(scores, p, losses, label) if seen else [])]


@pytest.mark.parametrize("with_logits", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(8, 5), (1, 2), (700, 2), (64, 15), (241, 10), (3000, 7)])
def test_training_stays(with_logits, rows, classes):
    found = types(compare(lambda: network(classes, with_logits=with_logits), feed(rows, classes), 3, 2e-5, 2e-6))
    assert found.count("classify_ahead") == 1 and not (_PARTS | {"mean"}) & set(found)
    assert found.count("dense_layer") == found.count("dense_layer_grad") == 1


@pytest.mark.parametrize("act", [None, "sigmoid", "tanh"])
@pytest.mark.parametrize("hidden", [0, 7, 16, 100])
def test_what_stands_before(act, hidden):
    """Any activation; layers of fewer columns than the kernel takes; data, whose gradient nobody wants."""
    found = types(compare(lambda: network(3, act, hidden=hidden), feed(50, 3), 3, 2e-5, 2e-6))
    assert found.count("classify_ahead") == 1


@pytest.mark.parametrize("with_logits", [False, True])
def test_what_is_fetched_is_there(with_logits):
    def seen(scores, p, losses, label):
        return [scores, p, losses, fluid.layers.accuracy(p, label), fluid.layers.reduce_sum(losses)]

    found = types(compare(lambda: network(6, with_logits=with_logits, seen=seen), feed(90, 6), 3, 2e-5, 2e-6))
    assert found.count("classify_ahead") == 1


@pytest.mark.parametrize("with_logits", [False, True])
@pytest.mark.parametrize("ignore", [1, 255, -1])
def test_ignored_labels(with_logits, ignore):
    given = feed(30, 4)
    given["label"][::3] = ignore
    if with_logits and ignore > 1:
        given["label"][::3] = 1  # a label outside sends its gradient to another row in Fluid: left to the other tests
    found = types(compare(lambda: network(4, with_logits=with_logits, ignore=ignore), given, 3, 2e-5, 2e-6))
    assert found.count("classify_ahead") == 1


def test_a_label_out_of_range_names_the_users_line():
    main, startup, fetches = build(lambda: network(4))
    with pytest.raises(Exception, match="test_classify_ahead") as raised:
        run(main, startup, {**feed(9, 4), "label": np.full((9, 1), 4, "int64")}, fetches)
    assert "labels must be from 0 to 3" in str(raised.value)


def test_numbers_that_are_not_finite_and_large_scores():
    given = feed(20, 3)
    given["x"][4] = 1e4  # far below the greatest score the softmax is cut
    compare(lambda: network(3, act=None, rate=1e-9), given, 1, 2e-5, 2e-6)
    given["x"][7, 3] = np.nan
    compare(lambda: network(3), given, 1, 2e-5, 2e-6)


def test_sequences_of_rows():
    """Each of several labels a row: the scores have three dims, or LoD."""

    def make():
        x, label = fluid.data("x", [None, 5, 20], "float32"), fluid.data("label", [None, 5, 1], "int64")
        scores = fluid.layers.fc(x, 4, num_flatten_dims=2)
        loss = fluid.layers.mean(fluid.layers.softmax_with_cross_entropy(scores, label))
        fluid.optimizer.SGD(0.5).minimize(loss)
        return [loss, scores]

    given = {"x": RNG.randn(7, 5, 20).astype("float32"), "label": RNG.randint(0, 4, (7, 5, 1)).astype("int64")}
    assert "classify_ahead" in types(compare(make, given, 3, 2e-5, 2e-6))


def test_labels_without_their_last_dim():
    main, startup, fetches = build(lambda: network(4))
    given = feed(12, 4)
    whole = run(main, startup, given, fetches, 2)[0]
    flat = run(main, startup, {**given, "label": given["label"].reshape(-1)}, fetches, 2)[0]
    np.testing.assert_array_equal(whole[0], flat[0])


def weighted():
    return network_of(lambda losses: fluid.layers.mean(losses * 2.0))


def summed():
    return network_of(fluid.layers.reduce_sum)


def many():
    return network_of(fluid.layers.mean, classes=16)


def shared():
    """The weight serves a second layer, which stands between the scores and their loss."""
    x, label = fluid.data("x", [None, 40], "float32"), fluid.data("label", [None, 1], "int64")
    one = fluid.layers.fc(x, 4, param_attr="w", bias_attr="b", act="softmax")
    other = fluid.layers.fc(x * 0.5, 4, param_attr="w", bias_attr="c", act="softmax")
    losses = [fluid.layers.mean(fluid.layers.cross_entropy(p, label)) for p in (one, other)]
    fluid.optimizer.SGD(0.5).minimize(fluid.layers.sum(losses))
    return losses


def network_of(end, classes=4):
    x, label = fluid.data("x", [None, 40], "float32"), fluid.data("label", [None, 1], "int64")
    losses = fluid.layers.cross_entropy(fluid.layers.fc(x, classes, act="softmax"), label)
    loss = end(losses)
    fluid.optimizer.SGD(0.05).minimize(loss)
    return [loss]


@pytest.mark.parametrize("make", [weighted, summed, many, shared])
def test_places_that_stay(make):
    assert "classify_ahead" not in types(compare(make, feed(30, 4), 3, 2e-5, 2e-6))


def test_the_gradient_of_the_scores_is_seen():
    def make():
        return network(4, with_logits=True, seen=lambda scores, *rest: [scores.name + "@GRAD"])

    assert "classify_ahead" not in types(compare(make, feed(30, 4), 2, 2e-5, 2e-6))


def test_gradients_that_are_fetched():
    def make():
        found = network(4)
        return [*found, *(p.name + "@GRAD" for p in fluid.default_main_program().all_parameters())]

    assert "classify_ahead" in types(compare(make, feed(30, 4), 2, 2e-5, 2e-6))


def test_two_threads(monkeypatch):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = types(compare(lambda: network(2, hidden=300), feed(1500, 2), 3, 5e-5, 5e-6))
    finally:
        torch.set_num_threads(before)
    assert "classify_ahead" in found
