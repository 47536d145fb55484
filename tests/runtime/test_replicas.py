"""Replicas of a Program: in threads or one after the other they compute the same, with any number of places and threads."""

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream.errors import MillstreamError
from millstream.runtime import replicas

RNG = np.random.RandomState(3)
FEED = {
    "image": RNG.randn(16, 3, 12, 12).astype("float32"),
    "id": RNG.randint(0, 30, (16, 1)).astype("int64"),
    "label": RNG.randint(0, 4, (16, 1)).astype("int64"),
}


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network():
    layers = fluid.layers
    image, label = fluid.data("image", [None, 3, 12, 12]), fluid.data("label", [None, 1], "int64")
    x = layers.batch_norm(layers.conv2d(image, 8, 3, padding=1, bias_attr=False), act="relu")
    x = layers.pool2d(x, 2, pool_stride=2)
    row = layers.embedding(fluid.data("id", [None, 1], "int64"), [30, 6], is_sparse=True)
    x = layers.concat([layers.fc(x, 20, act="relu"), row], 1)
    loss = layers.mean(layers.cross_entropy(layers.fc(x, 4, act="softmax"), label))
    fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
    return loss


def train(places, apart, steps=4):
    """Losses of all places, and the parameters after the last step."""
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    main.random_seed = startup.random_seed = 5
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(scope):
        loss = network()
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        both = fluid.CompiledProgram(main).with_data_parallel(loss_name=loss.name, places=fluid.cpu_places(places))
        losses = []
        for _ in range(steps):
            if both._replicas is not None:
                both._replicas.way.apart = apart
            losses.append(exe.run(both, feed=FEED, fetch_list=[loss])[0])
        return losses, {p.name: np.array(scope.find_var(p.name).get_tensor()) for p in main.all_parameters()}


@pytest.mark.parametrize("places", [2, 8])
def test_threads_and_one_after_the_other_agree_to_the_last_bit(places):
    torch.set_num_threads(2)
    train(places, False)  # some operators take torch's way until numba is loaded
    (losses, weights), (others, other_weights) = train(places, True), train(places, False)
    assert losses[0].shape == (places,) and losses[-1].mean() < losses[0].mean()
    np.testing.assert_array_equal(losses, others)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, other_weights[name])


@pytest.mark.parametrize("threads", [1, 3, 40])
def test_any_number_of_threads(threads):
    torch.set_num_threads(2)
    expected = train(8, True)
    torch.set_num_threads(threads)
    for apart in (True, False):
        found = train(8, apart)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
        for name, value in found[1].items():
            np.testing.assert_allclose(value, expected[1][name], rtol=1e-3, atol=1e-5)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [2, 40])
def test_an_error_in_a_place_comes_out_and_the_next_step_runs(threads):
    torch.set_num_threads(threads)
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        row = fluid.layers.embedding(fluid.data("id", [None, 1], "int64"), [30, 6])
        both = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(places=fluid.cpu_places(2))
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(fluid.default_startup_program())
        wrong = np.array([[1], [2], [3], [300]], "int64")
        for _ in range(5):
            with pytest.raises(MillstreamError, match="300"):
                exe.run(both, feed={"id": wrong}, fetch_list=[row])
            assert exe.run(both, feed={"id": wrong % 30}, fetch_list=[row])[0].shape == (4, 6)


def taken(way, one_by_one, apart, steps):
    """Ways of the next steps, when steps take so long."""
    found = []
    for _ in range(steps):
        found.append(way.apart)
        way.took(apart if way.apart else one_by_one)
    return found


def test_the_faster_way_is_found_and_asked_for_again():
    """Soon once more, for the first turns of a process are slower than later ones, then seldom."""
    turns = [False, True] * replicas._TURNS
    way, soon, again = replicas._Way(), replicas._SOON, replicas._AGAIN
    assert taken(way, 0.001, 0.002, 1 + len(turns) + soon) == [False, *turns, *[False] * soon]
    assert taken(way, 0.002, 0.001, len(turns) + again) == turns + [True] * again
    assert taken(way, 0.001, 0.002, len(turns) + 50) == turns + [False] * 50
    assert taken(replicas._Way(), 2.0, 1.0, 6) == [False, False, True, True, True, True]
