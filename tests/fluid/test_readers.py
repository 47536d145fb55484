"""Readers inside a Program and loaders over generators: passes, EOF, errors, several places, nothing left behind."""

import gc
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.batch import batch
from millstream.fluid import core
from millstream.fluid import layers as L
from millstream.fluid.io import DataLoader, PyReader

PLACE = fluid.CPUPlace()


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield


def batches(n, rows=3):
    for i in range(n):
        yield np.full((rows, 2), i, "float32"), np.full((rows, 1), i, "int64")


def samples(n):
    for i in range(n):
        yield np.full(2, i, "float32"), i


def variables():
    return [fluid.data("x", [None, 2]), fluid.data("y", [None, 1], "int64")]


def run_pass(exe, program, fetch, **kwargs):
    """Fetched sums until the reader ends."""
    got = []
    while True:
        try:
            got.append(float(np.sum(exe.run(program, fetch_list=[fetch], **kwargs)[0])))
        except core.EOFException:
            return got


# ---- py_reader -----------------------------------------------------------------------------------
@pytest.mark.parametrize("double", [True, False])
def test_py_reader_passes(double):
    reader = L.py_reader(2, [[-1, 2], [-1, 1]], ["float32", "int64"], use_double_buffer=double)
    x, _ = L.read_file(reader)
    total = L.reduce_sum(x)
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    main = fluid.default_main_program()
    with pytest.raises(ValueError, match="start"):
        exe.run(main, fetch_list=[total])
    reader.decorate_paddle_reader(batch(lambda: samples(5), 2))
    for _ in range(2):
        reader.start()
        assert run_pass(exe, main, total) == [2, 10, 8]
        with pytest.raises(core.EOFException):
            exe.run(main)
        reader.reset()
    reader.start()
    exe.run(main)
    reader.reset()  # in the middle of a pass
    reader.start()
    assert run_pass(exe, main, total) == [2, 10, 8]
    reader.reset()
    reader.decorate_tensor_provider(lambda: ([x, y] for x, y in batches(2)))
    reader.start()
    assert run_pass(exe, main, total) == [0, 6]


def test_read_without_fetch_still_advances():
    reader = L.py_reader(2, [[-1, 2], [-1, 1]], ["float32", "int64"], name="train")
    L.read_file(reader)
    exe = fluid.Executor(PLACE)
    reader.decorate_tensor_provider(lambda: batches(3))
    exe.run(fluid.default_startup_program())
    reader.start()
    for _ in range(3):
        assert exe.run(fluid.default_main_program()) == []
    with pytest.raises(core.EOFException):
        exe.run(fluid.default_main_program())


def test_lod_and_a_program_cloned_for_test():
    ids = L.data("ids", [1], dtype="int64", lod_level=1)
    label = L.data("label", [1], dtype="int64")
    reader = L.create_py_reader_by_data(4, [ids, label], name="by_data")
    words, _ = L.read_file(reader)
    pooled = L.sequence_pool(L.cast(words, "float32"), "sum")
    test = fluid.default_main_program().clone(for_test=True)
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    reader.decorate_paddle_reader(lambda: iter([[([1, 2, 3], 0), ([4], 1)], [([5], 0)]]))
    for program in (fluid.default_main_program(), test):
        reader.start()
        got = [exe.run(program, fetch_list=[pooled])[0].ravel().tolist() for _ in range(2)]
        assert got == [[6, 4], [5]]
        reader.reset()


def test_training_moves_parameters():
    reader = L.py_reader(8, [[-1, 4], [-1, 1]], ["float32", "float32"])
    x, y = L.read_file(reader)
    loss = L.mean(L.square(L.elementwise_sub(L.fc(x, 1), y)))
    fluid.append_backward(loss)
    main = fluid.default_main_program()
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    rng = np.random.default_rng(0)
    reader.decorate_tensor_provider(lambda: ((rng.random((8, 4), "float32"), np.ones((8, 1), "float32")) for _ in range(4)))
    reader.start()
    assert len(run_pass(exe, fluid.CompiledProgram(main), loss)) == 4


def test_missing_startup_is_an_error():
    reader = L.py_reader(2, [[-1, 2]], ["float32"])
    L.read_file(reader)
    reader.decorate_tensor_provider(lambda: iter([]))
    with pytest.raises(core.EnforceNotMet, match="startup program"):
        fluid.Executor(PLACE).run(fluid.default_main_program())


def test_errors_of_the_generator_reach_the_run():
    x, y = variables()
    loader = DataLoader.from_generator([x, y], capacity=2, iterable=False)

    def bad():
        yield from batches(1)
        raise KeyError("boom")

    loader.set_batch_generator(bad)
    exe = fluid.Executor(PLACE)
    loader.start()
    exe.run(fluid.default_main_program())
    for _ in range(2):
        with pytest.raises(core.EnforceNotMet, match="read failed: KeyError: 'boom'") as caught:
            exe.run(fluid.default_main_program())
        assert isinstance(caught.value.__cause__, KeyError)
    loader.reset()
    loader.set_batch_generator(lambda: ((x,) for x, _ in batches(1)))
    loader.start()
    with pytest.raises(ValueError, match="has 1 arrays, but 2 variables are fed: x, y"):
        exe.run(fluid.default_main_program())
    loader.reset()
    loader.set_batch_generator(lambda: ((np.zeros((2, 3), "float32"), y) for _, y in batches(1)))
    loader.start()
    with pytest.raises(ValueError, match="dimension 1 must be 2, received 3"):
        exe.run(fluid.default_main_program())
    loader.reset()


# ---- several places ------------------------------------------------------------------------------
@pytest.mark.parametrize("drop_last, sums", [(True, [6, 30]), (False, [6, 30, 24])])
def test_each_place_reads_its_own_batch(drop_last, sums):
    x, y = variables()
    loader = DataLoader.from_generator([x, y], capacity=4, iterable=False, drop_last=drop_last)
    total = L.reduce_sum(x)
    first = L.reduce_mean(x)
    compiled = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(places=[PLACE] * 2)
    exe = fluid.Executor(PLACE)
    loader.set_batch_generator(lambda: batches(5))
    for _ in range(3):
        loader.start()
        assert exe.run(compiled, fetch_list=[first])[0].tolist() == [0, 1]  # in order
        loader.reset()
    loader.start()
    assert run_pass(exe, compiled, total) == sums


@pytest.mark.parametrize("compiled, starts", [(True, [0.1, 0.025, 0.00625]), (False, [0.1, 0.0125, 0.0015625])])
def test_the_end_of_a_reader_moves_the_step_counter_only_of_a_plain_program(compiled, starts):
    """A compiled Program reads before it counts (numbers of 1.8.5: two batches a pass, the rate halves with each step)."""
    reader = L.py_reader(4, [[-1, 2]], ["float32"])
    loss = L.mean(L.fc(L.read_file(reader), 1))
    rate = L.exponential_decay(0.1, 1, 0.5)
    fluid.optimizer.SGD(rate).minimize(loss)
    exe = fluid.Executor()
    exe.run(fluid.default_startup_program())
    program = fluid.default_main_program()
    if compiled:
        program = fluid.CompiledProgram(program).with_data_parallel(loss.name, places=fluid.cpu_places(1))
    reader.decorate_tensor_provider(lambda: ([np.ones((3, 2), "float32")] for _ in range(2)))
    seen = []
    for _ in range(3):
        reader.start()
        rates = []
        with pytest.raises(fluid.core.EOFException):
            while True:
                rates.append(float(exe.run(program, fetch_list=[rate])[0][0]))
        reader.reset()
        seen.append(rates[0])
    np.testing.assert_allclose(seen, starts, rtol=1e-5)


def test_parallel_executor_with_py_reader(monkeypatch):
    monkeypatch.setenv("CPU_NUM", "2")
    reader = L.py_reader(4, [[-1, 2], [-1, 1]], ["float32", "int64"])
    x, _ = L.read_file(reader)
    loss = L.mean(L.fc(x, 1, param_attr=fluid.ParamAttr(name="w")))
    fluid.append_backward(loss)
    reader.decorate_paddle_reader(batch(lambda: samples(8), 2))
    fluid.Executor(PLACE).run(fluid.default_startup_program())
    parallel = fluid.ParallelExecutor(False, loss_name=loss.name)
    assert parallel.device_count == 2
    for _ in range(2):
        reader.start()
        steps = 0
        with pytest.raises(core.EOFException):
            while True:
                assert parallel.run([loss.name])[0].shape == (2,)
                steps += 1
        assert steps == 2
        reader.reset()


# ---- loaders -------------------------------------------------------------------------------------
def plain(item):
    return [{k: np.asarray(v).ravel()[0] for k, v in d.items()} if isinstance(d, dict) else len(d) for d in item]


@pytest.mark.parametrize("multiprocess", [False, True])
def test_iterable_items(multiprocess):
    feeds = variables()

    def loader(n=5, **kwargs):
        places = kwargs.pop("places", PLACE)
        made = DataLoader.from_generator(feeds, capacity=2, use_multiprocess=multiprocess, **kwargs)
        return made.set_batch_generator(lambda: batches(n), places)

    assert [plain(i) for i in loader()()] == [[{"x": k, "y": k}] for k in range(5)]
    assert [plain(i) for i in loader(places=[PLACE] * 2)] == [[{"x": k, "y": k}, {"x": k + 1, "y": k + 1}] for k in (0, 2)]
    assert [len(i) for i in loader(places=[PLACE] * 2, drop_last=False)] == [2, 2, 1]
    assert [plain(i) for i in loader(return_list=True)] == [[2]] * 5
    twice = loader(2)
    assert [len(list(twice)), len(list(twice()))] == [2, 2]
    assert plain(next(twice)) == [{"x": 0, "y": 0}] and plain(twice.next()) == [{"x": 1, "y": 1}]
    with pytest.raises(StopIteration):
        next(twice)


def test_feeding_a_program():
    x, y = variables()
    total = L.reduce_sum(x)
    loader = DataLoader.from_generator([x, y], capacity=2).set_sample_generator(lambda: samples(5), 2, False, PLACE)
    exe = fluid.Executor(PLACE)
    main = fluid.default_main_program()
    assert [float(exe.run(main, feed=item, fetch_list=[total])[0][0]) for item in loader] == [2, 10, 8]
    old = PyReader([x, y], capacity=2)
    old.decorate_sample_list_generator(batch(lambda: samples(5), 2), PLACE)
    assert [float(exe.run(main, feed=item, fetch_list=[total])[0][0]) for item in old()] == [2, 10, 8]


def test_wrong_use():
    x, y = variables()
    with pytest.raises(ValueError, match="capacity"):
        DataLoader.from_generator([x, y])
    loader = DataLoader.from_generator([x, y], capacity=2)
    with pytest.raises(AssertionError, match="Places"):
        loader.set_batch_generator(lambda: batches(1))
    with pytest.raises(AssertionError, match="source"):
        iter(loader)
    with pytest.raises(AssertionError, match="iterable=False"):
        loader.start()
    queued = DataLoader.from_generator([x, y], capacity=2, iterable=False)
    with pytest.raises(AssertionError, match="not iterable"):
        iter(queued)
    with pytest.raises(ValueError, match="no data source"):
        queued.start()
    queued.set_batch_generator(lambda: batches(9))
    queued.start()
    with pytest.raises(ValueError, match="called twice"):
        queued.start()
    queued.reset()
    with pytest.raises(TypeError, match="no regular array"):
        list(loader.set_batch_generator(lambda: iter([([[1], [1, 2]], [1])]), PLACE))


def reader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("millstream")]


def settled(condition, seconds=5):
    end = time.time() + seconds
    while not condition() and time.time() < end:
        gc.collect()
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("multiprocess", [False, True])
def test_breaking_off_leaves_nothing(multiprocess):
    assert settled(lambda: not reader_threads() and not multiprocessing.active_children())
    feeds = variables()
    loader = DataLoader.from_generator(feeds, capacity=2, use_multiprocess=multiprocess)
    closed = []

    def endless():
        try:
            while True:
                yield from batches(1)
        finally:
            closed.append(True)

    loader.set_batch_generator(endless, PLACE)
    for _ in loader():
        break
    assert settled(lambda: not reader_threads() and not multiprocessing.active_children())
    assert multiprocess or closed == [True]


def test_a_worker_that_raises_or_dies_is_reported():
    feeds = variables()

    def raising():
        yield from batches(1)
        raise KeyError("boom")

    def dying():
        yield from batches(1)
        os.kill(os.getpid(), signal.SIGKILL)

    for source, error, message in ((raising, KeyError, "boom"), (dying, RuntimeError, "exit code -9")):
        loader = DataLoader.from_generator(feeds, capacity=2, use_multiprocess=True)
        loader.set_batch_generator(source, PLACE)
        got = []
        with pytest.raises(error, match=message):
            for item in loader:
                got.append(item)
        assert len(got) == 1
        queued = DataLoader.from_generator(feeds, capacity=2, use_multiprocess=True, iterable=False)
        queued.set_batch_generator(source)
        queued.start()
        program = fluid.default_main_program()
        exe = fluid.Executor(PLACE)
        exe.run(program)
        with pytest.raises(core.EnforceNotMet, match=message):
            exe.run(program)
        queued.reset()
        program.global_block().ops.clear()
        program._touch()
    assert settled(lambda: not multiprocessing.active_children())


def test_queue_by_hand():
    queue = core.init_lod_tensor_blocking_queue(fluid.global_scope().var("q"), 2, False)
    tensor = fluid.create_lod_tensor(np.zeros((2, 1), "float32"), [[1, 1]], PLACE)
    assert queue.push([tensor]) and queue.size() == 1 and queue.capacity() == 2
    queue.close()
    assert not queue.push([tensor])
    assert queue.pop() is not None and queue.pop() is None
    queue.reopen()
    waiting = threading.Thread(target=queue.pop)
    waiting.start()
    queue.kill()
    waiting.join(5)
    assert not waiting.is_alive()
    with pytest.raises(ValueError, match="already"):
        core.init_lod_tensor_blocking_queue(fluid.global_scope().var("q"), 2, False)


def test_a_program_with_a_reader_survives_its_bytes():
    x, y = variables()
    DataLoader.from_generator([x, y], capacity=4, iterable=False)
    again = fluid.Program.parse_from_string(fluid.default_main_program().serialize_to_string())
    assert [op.type for op in again.global_block().ops] == ["create_py_reader", "create_double_buffer_reader", "read"]
    assert again.global_block().var("double_buffer_0").reader_slots[0][0] == (-1, 2)


def test_the_end_of_a_reader_stays_one_beside_a_feed_of_another_rank():
    main, startup, exe = fluid.Program(), fluid.Program(), fluid.Executor()
    with fluid.program_guard(main, startup):
        reader = fluid.layers.py_reader(4, [(-1, 2)], ["float32"], use_double_buffer=False)
        total = fluid.layers.reduce_sum(fluid.layers.read_file(reader))
        other = fluid.layers.reduce_sum(fluid.layers.data("other", [3]))
    exe.run(startup)
    reader.decorate_tensor_provider(lambda: iter([[np.ones((2, 2), "float32")]]))
    reader.start()
    feed = {"other": np.ones(3, "float32")}  # rank 1 where 2 is declared
    assert [float(v[0]) for v in exe.run(main, feed=feed, fetch_list=[total, other])] == [4.0, 3.0]
    with pytest.raises(fluid.core.EOFException):
        exe.run(main, feed=feed, fetch_list=[total, other])
