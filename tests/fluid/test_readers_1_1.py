"""Reader layers of Fluid 1.1: shuffle, batch, random_data_generator; append_LARS."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid import core
from millstream.fluid import layers as L


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield


def started():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


def rows(exe, x):
    got = []
    while True:
        try:
            got.append(exe.run(fetch_list=[x])[0])
        except core.EOFException:
            return got


@pytest.mark.parametrize("double", [True, False])
def test_shuffle_and_batch(double):
    source = L.py_reader(2, [[-1, 2]], ["float32"], use_double_buffer=double)
    reader = L.double_buffer(L.batch(L.shuffle(source, 4), 3))
    x = L.read_file(reader)
    fluid.default_main_program().random_seed = 3
    exe = started()
    reader.decorate_tensor_provider(lambda: ([np.full((2, 2), i, "float32")] for i in range(8)))
    orders = []
    for _ in range(2):
        reader.start()
        got = rows(exe, x)
        reader.reset()
        assert [g.shape for g in got] == [(6, 2)] * 2  # 8 // 3, the rest is dropped
        order = np.concatenate(got)[::2, 0].tolist()
        assert sorted(order[:4]) == [0, 1, 2, 3]  # shuffled four at a time
        assert set(order[4:]) < {4, 5, 6, 7}
        orders.append(order)
    assert orders[0] != [0, 1, 2, 3, 4, 5] or orders[1] != [0, 1, 2, 3, 4, 5]


def test_reset_drops_what_is_kept():
    reader = L.shuffle(L.py_reader(2, [[-1, 1]], ["float32"]), 10)
    x = L.read_file(reader)
    exe = started()
    reader.decorate_tensor_provider(lambda: ([np.full((1, 1), i, "float32")] for i in range(5)))
    reader.start()
    exe.run(fetch_list=[x])
    reader.reset()
    reader.start()
    assert sorted(float(g[0, 0]) for g in rows(exe, x)) == [0, 1, 2, 3, 4]


def test_batch_joins_lod():
    reader = L.batch(L.py_reader(2, [[-1, 1]], ["float32"], lod_levels=[1]), 2)
    x = L.read_file(reader)
    exe = started()

    def batches():
        for lengths in ([2, 1], [3], [1], [1, 4]):
            yield [fluid.create_lod_tensor(np.ones((sum(lengths), 1), "float32"), [lengths], fluid.CPUPlace())]

    reader.decorate_tensor_provider(batches)
    reader.start()
    first = exe.run(fetch_list=[x], return_numpy=False)[0]
    assert first.recursive_sequence_lengths() == [[2, 1, 3]]
    assert exe.run(fetch_list=[x], return_numpy=False)[0].recursive_sequence_lengths() == [[1, 1, 4]]


def test_random_data_generator():
    reader = L.batch(L.random_data_generator(-1.0, 2.0, [[3, 4], [5]], [0, 0]), 2)
    a, b = L.read_file(reader)
    exe = started()
    first, second = exe.run(fetch_list=[a, b])
    assert first.shape == (6, 4)
    assert second.shape == (10,)
    assert first.dtype == np.float32
    assert (first >= -1).all() and (first < 2).all()
    assert not np.array_equal(first, exe.run(fetch_list=[a, b])[0])


@pytest.mark.parametrize("make", [lambda r: L.shuffle(r, 0), lambda r: L.batch(r, -1)])
def test_counts_are_checked(make):
    reader = L.py_reader(2, [[-1, 1]], ["float32"])
    with pytest.raises(ValueError, match="must be positive"):
        make(reader)
    with pytest.raises(ValueError, match="received"):
        L.random_data_generator(0.0, 1.0, [[3]], [1])


def test_append_LARS():
    x = fluid.data("x", [2, 3])
    loss = L.mean(L.fc(x, 2, bias_attr=False, param_attr=fluid.ParamAttr("w", learning_rate=0.5)))
    optimizer = fluid.optimizer.SGD(1.0)
    pairs = optimizer.backward(loss)
    (rate,) = L.append_LARS(pairs, 0.1, 0.01)
    optimizer.apply_gradients(pairs)
    exe = started()
    old = np.array(fluid.global_scope().find_var("w").get_tensor())
    grad, got = exe.run(feed={"x": np.arange(6, dtype="float32").reshape(2, 3)}, fetch_list=[pairs[0][1], rate])
    want = 0.5 * 0.1 * np.linalg.norm(old) / (np.linalg.norm(grad) + 0.01 * np.linalg.norm(old))
    np.testing.assert_allclose(got, [want], rtol=1e-5)
    np.testing.assert_allclose(np.array(fluid.global_scope().find_var("w").get_tensor()), old - want * grad, rtol=1e-5)
