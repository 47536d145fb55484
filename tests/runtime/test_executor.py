"""Executor: feeds, fetches, scopes, caching, errors."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import FeedError, InvalidProgramError, OperatorError, UninitializedError

HERE = "test_executor.py"


def small_net():
    x = fluid.data("x", [None, 4], "float32")
    hidden = fluid.layers.fc(x, 3, act="relu")
    return x, hidden, fluid.layers.mean(hidden)


def started():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


def test_fetches_are_copies():
    small_net()
    exe = started()
    (weight,) = exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=["fc_0.w_0"])
    weight += 100
    assert abs(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())).max() < 10
    tensor = exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=["fc_0.w_0"], return_numpy=False)[0]
    tensor.torch().add_(100)
    assert abs(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())).max() < 10


def test_plans_are_cached_until_the_program_changes():
    _, hidden, loss = small_net()
    exe = started()
    feed = {"x": np.ones((2, 4), "float32")}
    before = len(exe._plans)
    for _ in range(3):
        exe.run(feed=feed, fetch_list=[loss])
    assert len(exe._plans) == before + 1
    out = fluid.layers.scale(hidden, 2.0)
    doubled, plain = exe.run(feed=feed, fetch_list=[out, hidden])
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)
    assert len(exe._plans) == before + 2


def test_scopes_keep_their_own_parameters():
    _, hidden, _ = small_net()
    exe = fluid.Executor()
    scopes = fluid.Scope(), fluid.Scope()
    for scope, value in zip(scopes, (1.0, 2.0)):
        with fluid.scope_guard(scope):
            exe.run(fluid.default_startup_program())
            scope.find_var("fc_0.w_0").get_tensor().set(np.full((4, 3), value, "float32"), fluid.CPUPlace())
    feed = {"x": np.ones((1, 4), "float32")}
    first, second = (exe.run(feed=feed, fetch_list=[hidden], scope=s)[0] for s in scopes)
    np.testing.assert_allclose(first * 2, second)


def test_a_missing_feed_names_the_variable_and_the_line():
    _, _, loss = small_net()
    exe = started()
    with pytest.raises(UninitializedError) as caught:
        exe.run(fetch_list=[loss])
    assert "x: float32[-1, 4]" in str(caught.value) and HERE in str(caught.value)


def test_forgetting_the_startup_program_is_said():
    _, _, loss = small_net()
    with pytest.raises(UninitializedError, match="run the startup program"):
        fluid.Executor().run(feed={"x": np.ones((1, 4), "float32")}, fetch_list=[loss])


@pytest.mark.parametrize(
    "value, words",
    [
        (np.ones((2, 4), "int64"), "expected float32, received int64"),
        (np.ones((2, 2, 4), "float32"), "expected rank 2, received rank 3"),
        (np.ones((2, 5), "float32"), "dimension 1 must be 4, received 5"),
        (np.array([["a"]], dtype=object), "ragged or non-numeric"),
    ],
)
def test_wrong_feeds(value, words):
    _, _, loss = small_net()
    exe = started()
    with pytest.raises(FeedError, match=words):
        exe.run(feed={"x": value}, fetch_list=[loss])


def test_operators_decide_about_the_rank_of_what_layers_data_declares():
    x, beta = fluid.layers.data("x", [2]), fluid.layers.data("beta", [], append_batch_size=False)
    out = fluid.layers.elementwise_mul(x, beta)
    feed = {"x": np.ones((3, 2), "float32"), "beta": np.array([2.0], "float32")}
    assert fluid.Executor().run(feed=feed, fetch_list=[out])[0].tolist() == [[2.0, 2.0]] * 3


def test_a_feed_that_fits_is_converted():
    _, _, loss = small_net()
    exe = started()
    a = exe.run(feed={"x": np.ones((2, 4), "float64")}, fetch_list=[loss])[0]
    b = exe.run(feed={"x": [[1, 1, 1, 1], [1, 1, 1, 1]]}, fetch_list=[loss])[0]
    np.testing.assert_allclose(a, b)
    assert a.dtype == np.float32


def test_unknown_feeds_warn_and_unknown_fetches_raise():
    _, _, loss = small_net()
    exe = started()
    feed = {"x": np.ones((1, 4), "float32"), "typo": np.ones(1)}
    with pytest.warns(UserWarning, match="no variable 'typo'"):
        exe.run(feed=feed, fetch_list=[loss])
    with pytest.raises(InvalidProgramError, match="'nothing' is not a variable"):
        exe.run(feed={"x": np.ones((1, 4), "float32")}, fetch_list=["nothing"])
    with pytest.raises(TypeError, match="fetch_list"):
        exe.run(feed={"x": np.ones((1, 4), "float32")}, fetch_list=[3])


def test_a_wrong_lod_is_refused():
    words = fluid.layers.data("words", [1], dtype="int64", lod_level=1)
    pooled = fluid.layers.sequence_pool(fluid.layers.cast(words, "float32"), "sum")
    tensor = fluid.LoDTensor()
    tensor.set(np.ones((4, 1), "int64"), fluid.CPUPlace())
    with pytest.raises(FeedError, match="add up to 5, but there are 4 rows"):
        tensor.set_recursive_sequence_lengths([[2, 3]])
    tensor._lod = (np.array([0, 2, 5]),)
    with pytest.raises(FeedError, match="words"):
        fluid.Executor().run(feed={"words": tensor}, fetch_list=[pooled])


def test_a_fetch_with_lod_needs_a_lod_tensor():
    words = fluid.layers.data("words", [2], lod_level=1)
    twice = fluid.layers.scale(words, 2.0)
    feed = {"words": fluid.create_lod_tensor(np.ones((3, 2), "float32"), [[1, 2]], fluid.CPUPlace())}
    exe = fluid.Executor()
    with pytest.raises(InvalidProgramError, match="return_numpy=False"):
        exe.run(feed=feed, fetch_list=[twice])
    out = exe.run(feed=feed, fetch_list=[twice], return_numpy=False)[0]
    assert out.recursive_sequence_lengths() == [[1, 2]]


def test_run_time_failures_name_operator_variables_and_line():
    x = fluid.layers.data("x", [4])
    y = fluid.layers.data("y", [4])
    total = fluid.layers.elementwise_add(x, y)
    with pytest.raises(OperatorError) as caught:
        fluid.Executor().run(feed={"x": np.ones((2, 4), "float32"), "y": np.ones((3, 4), "float32")}, fetch_list=[total])
    message = str(caught.value)
    assert "elementwise_add" in message and "input Y: y" in message and HERE in message


def test_check_nan_inf_names_operator_and_variable():
    x = fluid.layers.data("x", [2])
    out = fluid.layers.log(x)
    exe = fluid.Executor()
    feed = {"x": np.array([[1.0, -1.0]], "float32")}
    assert np.isnan(exe.run(feed=feed, fetch_list=[out])[0]).any()
    fluid.set_flags({"FLAGS_check_nan_inf": True})
    try:
        with pytest.raises(OperatorError, match=r"operator log output 'log_0.tmp_0' .* 1 NaN"):
            exe.run(feed=feed, fetch_list=[out])
    finally:
        fluid.set_flags({"FLAGS_check_nan_inf": False})


def test_cuda_without_cuda_is_a_clear_error():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(NotImplementedError, match="no CUDA device"):
        fluid.Executor(fluid.CUDAPlace(0))


def test_seeded_programs_repeat():
    x = fluid.layers.data("x", [50])
    fluid.default_main_program().random_seed = 5
    noisy = fluid.layers.dropout(x, 0.5)
    noise = fluid.layers.uniform_random([3, 4])
    feed = {"x": np.ones((2, 50), "float32")}
    first, second = (fluid.Executor().run(feed=feed, fetch_list=[noisy, noise]) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_unneeded_operators_do_not_run_but_writes_do():
    x = fluid.layers.data("x", [1])
    counter = fluid.layers.create_global_var([1], 0.0, "float32", persistable=True, name="counter")
    fluid.layers.increment(counter)
    unfed = fluid.layers.data("unfed", [1])
    fluid.layers.log(unfed)
    out = fluid.layers.scale(x, 3.0)
    exe = started()
    for _ in range(3):
        exe.run(feed={"x": np.ones((1, 1), "float32")}, fetch_list=[out])
    assert float(fluid.global_scope().find_var("counter").get_tensor()) == 3.0


def test_use_prune_runs_only_what_the_fetches_need_where_feeds_are_missing():
    x = fluid.layers.data("x", [2])
    y = fluid.layers.data("y", [1])
    predict = fluid.layers.fc(x, 1)
    fluid.optimizer.SGD(0.1).minimize(fluid.layers.mean(fluid.layers.square_error_cost(predict, y)))
    exe = started()
    before = np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())
    exe.run(feed={"x": np.ones((2, 2), "float32")}, fetch_list=[predict], use_prune=True)
    np.testing.assert_array_equal(before, np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor()))


@pytest.mark.parametrize("use_prune", [False, True])
def test_a_step_moves_parameters_with_use_prune_and_beside_the_result_of_minimize(use_prune):
    x = fluid.layers.data("x", [2])
    predict = fluid.layers.fc(x, 1)
    loss = fluid.layers.mean(fluid.layers.square(predict - 1.0))
    made = fluid.optimizer.SGD(0.1).minimize(loss)
    exe = started()
    for fetches in ([loss], [predict], [loss, made]):
        before = np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())
        got = exe.run(feed={"x": np.ones((2, 2), "float32")}, fetch_list=fetches, use_prune=use_prune)
        assert len(got) == 1 and (before != np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())).all()


def test_a_closed_executor_refuses():
    exe = fluid.Executor()
    exe.close()
    with pytest.raises(InvalidProgramError, match="closed"):
        exe.run(fluid.default_startup_program())


def test_the_plan_can_be_read():
    _, _, loss = small_net()
    exe = started()
    exe.run(feed={"x": np.ones((1, 4), "float32")}, fetch_list=[loss])
    source = list(exe._plans.values())[-1].source
    assert source.startswith("def step(feed, feed_lods, tensors, scope_vars, ctx):") and "return [" in source


def test_a_form_that_was_taken_once():
    """Checked forms of arrays are remembered; another dtype, shape, declaration or Program is checked again."""
    x = fluid.data("x", [None, 3], "float32")
    y = fluid.layers.scale(x, 2.0)
    exe = fluid.Executor()
    a = np.ones((2, 3), "float32")
    for _ in range(2):
        assert exe.run(feed={"x": a}, fetch_list=[y])[0].tolist() == [[2.0] * 3] * 2
        assert exe.run(feed={"x": a.astype("float64")}, fetch_list=[y])[0].dtype == np.float32
        assert exe.run(feed={"x": np.asfortranarray(np.arange(6).reshape(2, 3).astype("float32"))}, fetch_list=[y])[
            0
        ].tolist() == [[0, 2, 4], [6, 8, 10]]
        for wrong in (np.ones((2, 4), "float32"), np.ones((2, 3), "int64"), np.ones((), "float32")):
            with pytest.raises(FeedError, match="feed"):
                exe.run(feed={"x": wrong}, fetch_list=[y])
    x.shape = (-1, 4)
    with pytest.raises(FeedError, match="dimension 1 must be 4"):
        exe.run(feed={"x": a}, fetch_list=[y])
    fetched = exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=[y, x])
    fetched[1][:] = 5  # what is fetched has memory of its own
    assert exe.run(feed={"x": np.ones((2, 4), "float32")}, fetch_list=[x])[0].max() == 1


def test_an_operator_that_fails_says_what_it_received():
    """Variables as declared and, where that is something else, what came: also inside a sub-Block."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.layers.data("x", [4])
        fluid.layers.fc(x, 3)
        flag = fluid.layers.fill_constant([1], "bool", True)
        looped = fluid.layers.cond(flag, lambda: fluid.layers.matmul(x, x), lambda: x)
    exe, scope = fluid.Executor(), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        with pytest.raises(OperatorError) as caught:
            exe.run(main, feed={"x": np.ones((2, 5), "float32")}, fetch_list=["fc_0.tmp_0"], use_prune=True)
        assert "input X: x: float32[-1, 4], received [2, 5]\n" in str(caught.value)
        assert ": fc_0.w_0: float32[4, 3]\n" in str(caught.value)
        with pytest.raises(OperatorError) as caught:
            exe.run(main, feed={"x": np.ones((2, 4), "float32")}, fetch_list=[looped])
        assert "received [2, 4]" in str(caught.value) and __file__ in str(caught.value)
