"""fuse_squared_error: regression with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(23)
FEED = {"x": RNG.randn(8, 6), "y": RNG.randn(8, 1)}
FUSED = ["mean_squared_error", "mean_squared_error_grad"]


def regression(loss_of=None, dtype="float64", turned=False):
    def make():
        x, y = fluid.data("x", [None, 6], dtype), fluid.data("y", [None, 1], dtype)
        y.stop_gradient = not turned
        out = fluid.layers.fc(x, 1)
        cost = fluid.layers.square_error_cost(*((y, out) if turned else (out, y)))
        loss = fluid.layers.mean(cost)
        if loss_of is not None:
            loss = loss_of(loss, out, cost)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss, loss.block.var("y@GRAD")] if turned else [loss]

    return make


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("loss_of", [None, lambda loss, out, cost: loss * 0.3 + fluid.layers.mean(out)])
def test_training_stays(dtype, turned, loss_of):
    feed = {k: v.astype(dtype) for k, v in FEED.items()}
    close = (1e-9, 1e-11) if dtype == "float64" else (1e-5, 1e-6)
    found = types(compare(regression(loss_of, dtype, turned), feed, 3, *close))
    assert [found.count(t) for t in FUSED] == [1, 1] and not {"square", "square_grad", "elementwise_sub"} & set(found)


@pytest.mark.parametrize("rows", [(8, 1), (1, 8), (0, 0)])
def test_a_batch_of_one_is_spread(rows):
    feed = {"x": FEED["x"][: rows[0]], "y": FEED["y"][: rows[1]]}
    assert "mean_squared_error" in types(compare(regression(), feed, 2, 1e-9, 1e-11))


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda loss, out, cost: loss + fluid.layers.mean(fluid.layers.sqrt(cost)),
        lambda loss, out, cost: loss + fluid.layers.mean(fluid.layers.exp(cost.op.block.var(cost.op.input("X")[0]))),
    ],
)
def test_values_that_others_read(loss_of):
    assert not set(FUSED) & set(types(compare(regression(loss_of), FEED, 2, 1e-9, 1e-11)))


def test_fetched_costs_and_gradients_of_gradients():
    main, startup, fetches = build(lambda: regression()())
    cost = next(op.output("Out")[0] for op in main.global_block().ops if op.type == "square")
    assert not set(FUSED) & set(types(run(main, startup, FEED, [*fetches, cost])[2]))

    def twice():
        x, y = fluid.data("x", [None, 6], "float64"), fluid.data("y", [None, 1], "float64")
        x.stop_gradient = False
        loss = fluid.layers.mean(fluid.layers.square_error_cost(fluid.layers.fc(x, 1), y))
        (dx,) = fluid.gradients(loss, x)
        penalty = fluid.layers.mean(fluid.layers.square(dx))
        fluid.optimizer.SGD(0.1).minimize(penalty)
        return [penalty]

    compare(twice, FEED, 2, 1e-9, 1e-11)
