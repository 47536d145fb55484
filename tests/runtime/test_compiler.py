"""CompiledProgram and ParallelExecutor: several places give the step of the whole batch."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import FeedError, InvalidProgramError


def build():
    x, y = fluid.layers.data("x", [5]), fluid.layers.data("y", [1])
    hidden = fluid.layers.fc(x, 7, act="tanh", param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.1)))
    predict = fluid.layers.fc(hidden, 1, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.2)))
    loss = fluid.layers.mean(fluid.layers.square_error_cost(predict, y))
    fluid.optimizer.Adam(0.05).minimize(loss)
    return predict, loss


def train(places, steps=5):
    """Losses over the whole batch and the last weights."""
    with fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()), fluid.scope_guard(fluid.Scope()):
        predict, loss = build()
        exe = fluid.Executor()
        exe.run(fluid.default_startup_program())
        program = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
            loss_name=loss.name, places=[fluid.CPUPlace()] * places
        )
        rng = np.random.RandomState(0)
        losses = []
        for _ in range(steps):
            feed = {"x": rng.randn(8, 5).astype("float32"), "y": rng.randn(8, 1).astype("float32")}
            value, rows = exe.run(program, feed=feed, fetch_list=[loss, predict])
            assert value.shape == (places,) and rows.shape == (8, 1)
            losses.append(value.mean())
        return losses, np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())


@pytest.mark.parametrize("places", [2, 4])
def test_places_together_do_the_step_of_the_whole_batch(places):
    one, many = train(1), train(places)
    np.testing.assert_allclose(one[0], many[0], rtol=1e-4)
    np.testing.assert_allclose(one[1], many[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("factor", [None, 2.0])
def test_a_rate_that_decays_by_step_reaches_the_updates_of_all_places(factor):
    """The rate is no persistable variable: the operators that make it are not the optimizer's (1.8.5's roles)."""

    def weights(places):
        programs = fluid.Program(), fluid.Program()
        with fluid.unique_name.guard(), fluid.program_guard(*programs), fluid.scope_guard(fluid.Scope()):
            out = fluid.layers.fc(fluid.layers.data("x", [3]), 1, param_attr=fluid.initializer.Constant(0.5))
            loss = fluid.layers.mean(fluid.layers.square(out))
            rate = fluid.layers.noam_decay(4, 3)
            rate = rate if factor is None else rate * factor
            fluid.optimizer.Adam(rate).minimize(loss)
            exe = fluid.Executor()
            exe.run(fluid.default_startup_program())
            program = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
                loss_name=loss.name, places=[fluid.CPUPlace()] * places
            )
            rates = [exe.run(program, feed={"x": np.eye(4, 3, dtype="float32")}, fetch_list=[rate])[0] for _ in range(4)]
            return [r[0] for r in rates], np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())

    one, two = weights(1), weights(2)
    assert one[0] == two[0] and len(set(one[0])) == 4
    np.testing.assert_allclose(one[1], two[1], rtol=1e-5)


def test_feeds_may_be_one_dict_a_place():
    predict, loss = build()
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    program = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
        loss_name=loss.name, places=[fluid.CPUPlace()] * 2
    )
    part = {"x": np.ones((3, 5), "float32"), "y": np.ones((3, 1), "float32")}
    assert exe.run(program, feed=[part, part], fetch_list=[predict])[0].shape == (6, 1)
    with pytest.raises(FeedError, match="2 places need a list of 2"):
        exe.run(program, feed=[part] * 3, fetch_list=[loss])
    with pytest.raises(FeedError, match="can't be split"):
        exe.run(program, feed={"x": np.ones((1, 5), "float32"), "y": np.ones((1, 1), "float32")}, fetch_list=[loss])


def test_sequences_are_split_whole():
    words = fluid.layers.data("words", [2], lod_level=1)
    pooled = fluid.layers.sequence_pool(words, "sum")
    program = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(places=[fluid.CPUPlace()] * 2)
    tensor = fluid.create_lod_tensor(np.ones((9, 2), "float32"), [[1, 2, 3, 3]], fluid.CPUPlace())
    (out,) = fluid.Executor().run(program, feed={"words": tensor}, fetch_list=[pooled])
    np.testing.assert_allclose(out[:, 0], [1, 2, 3, 3])


def test_parallel_executor_uses_cpu_num(monkeypatch):
    monkeypatch.setenv("CPU_NUM", "2")
    _, loss = build()
    fluid.Executor().run(fluid.default_startup_program())
    parallel = fluid.ParallelExecutor(use_cuda=False, loss_name=loss.name)
    assert parallel.device_count == 2
    feed = {"x": np.ones((4, 5), "float32"), "y": np.ones((4, 1), "float32")}
    first = parallel.run([loss.name], feed=feed)[0].mean()
    for _ in range(20):
        last = parallel.run([loss.name], feed=feed)[0].mean()
    assert last < first
    with pytest.raises(InvalidProgramError, match="num_trainers"):
        fluid.ParallelExecutor(use_cuda=False, num_trainers=2)


def test_batch_norm_statistics_are_those_of_the_first_place():
    x = fluid.layers.data("x", [3])
    out = fluid.layers.mean(fluid.layers.batch_norm(x, moving_mean_name="mean"))
    fluid.optimizer.SGD(0.1).minimize(out)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    program = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
        loss_name=out.name, places=[fluid.CPUPlace()] * 2
    )
    data = np.concatenate([np.zeros((4, 3)), np.ones((4, 3))]).astype("float32")
    exe.run(program, feed={"x": data}, fetch_list=[out])
    np.testing.assert_allclose(np.array(fluid.global_scope().find_var("mean").get_tensor()), 0.0, atol=1e-6)


@pytest.mark.parametrize("share", [True, False])
def test_a_program_for_testing_reads_the_statistics_of_its_places(share):
    """With share_vars_from each place has its own, as in Fluid; else all read the first place's, as they are by then."""
    x = fluid.layers.data("x", [1])
    x.stop_gradient = False
    normed = fluid.layers.batch_norm(x, momentum=0.5, moving_mean_name="mean", moving_variance_name="variance")
    out = fluid.layers.mean(normed)
    test = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.SGD(0.0).minimize(out)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    places = [fluid.CPUPlace()] * 2
    train = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(loss_name=out.name, places=places)
    given = {"share_vars_from": train} if share else {}
    test = fluid.CompiledProgram(test).with_data_parallel(places=places, **given)
    means, variance = [0.0, 0.0], 1.0
    for step in range(3):
        data = np.repeat(np.array([step, step + 4.0], "float32"), 2).reshape(4, 1)
        exe.run(train, feed={"x": data}, fetch_list=[out])
        (found,) = exe.run(test, feed={"x": data}, fetch_list=[normed])
        means, variance = [(m + d) / 2 for m, d in zip(means, (step, step + 4.0))], variance / 2
        centres = np.repeat(means if share else means[:1] * 2, 2).reshape(4, 1)
        np.testing.assert_allclose(found, (data - centres) / np.sqrt(variance + 1e-5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "places", "shares"),
    [(3, 4, [1, 1, 1]), (5, 2, [3, 2]), (5, 4, [2, 2, 1]), (7, 3, [3, 3, 1]), (7, 4, [2, 2, 2, 1])],
)
def test_uneven_batches_are_shared_as_in_fluid_and_unmerged_fetches_come_by_fetch(rows, places, shares):
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        x = fluid.data("x", [None, 1])
        twice, thrice = fluid.layers.scale(x, 2.0), fluid.layers.scale(x, 3.0)
        both = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(places=fluid.cpu_places(places))
    feed = {"x": np.arange(rows, dtype="float32").reshape(rows, 1)}
    out = fluid.Executor(fluid.CPUPlace()).run(both, feed=feed, fetch_list=[twice, thrice], return_merged=False)
    assert [[len(v) for v in fetch] for fetch in out] == [shares, shares]
    np.testing.assert_array_equal(np.concatenate(out[1]), feed["x"] * 3)


def test_training_averages_uneven_shares_by_place():
    """Recorded: five rows on two places give losses 1 and 3.5, and a weight of -1.25."""
    with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.scope_guard(fluid.Scope()):
        x = fluid.data("x", [None, 1])
        weight = fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(1.0))
        loss = fluid.layers.mean(fluid.layers.fc(x, 1, param_attr=weight))
        fluid.optimizer.SGD(1.0).minimize(loss)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(fluid.default_startup_program())
        prog = fluid.CompiledProgram(fluid.default_main_program())
        prog.with_data_parallel(loss_name=loss.name, places=fluid.cpu_places(2))
        feed = {"x": np.arange(5, dtype="float32").reshape(5, 1)}
        np.testing.assert_allclose(exe.run(prog, feed=feed, fetch_list=[loss])[0], [1.0, 3.5])
        np.testing.assert_allclose(np.array(fluid.global_scope().find_var("w").get_tensor()), [[-1.25]])
