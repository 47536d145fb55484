"""Reader decorators: values, laziness, failures, and that nothing is left running."""

import multiprocessing
import os
import random
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream import reader
from millstream.batch import batch

items = st.lists(st.integers(), max_size=30)
few = settings(max_examples=40, deadline=None)


def of(values):
    return lambda: iter(values)


def settled(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def own_threads():
    return [t for t in threading.enumerate() if t.name.startswith("millstream-") and "kernel" not in t.name]


@few
@given(items, st.integers(1, 7), st.booleans())
def test_batch_cuts_in_order(values, size, drop):
    got = list(batch(of(values), size, drop)())
    kept = len(values) // size * size if drop else len(values)
    assert [v for b in got for v in b] == values[:kept]
    assert all(len(b) == size for b in got[:-1])


@pytest.mark.parametrize("size", [0, -1, "a"])
def test_batch_refuses_bad_sizes_at_once(size):
    with pytest.raises(ValueError):
        batch(of([1]), size)


@few
@given(items, st.integers(1, 9), st.randoms(use_true_random=False))
def test_shuffle_permutes_inside_windows(values, window, _):
    got = list(reader.shuffle(of(values), window)())
    for start in range(0, len(values), window):
        assert sorted(got[start : start + window]) == sorted(values[start : start + window])


def test_shuffle_follows_the_random_seed():
    random.seed(3)
    assert list(reader.shuffle(of(range(10)), 4)()) == [3, 0, 2, 1, 4, 5, 7, 6, 9, 8]


@few
@given(items, items, st.integers(-1, 12), st.integers(0, 4))
def test_serial_decorators(a, b, n, size):
    assert list(reader.chain(of(a), of(b))()) == a + b
    assert list(reader.firstn(of(a), n)()) == (a if n < 0 else a[:n])
    assert list(reader.buffered(of(a), size)()) == a
    assert list(reader.cache(of(a))()) == a
    joined = reader.map_readers(lambda x, y: x - y, of(a), of(b))
    assert list(joined()) == [x - y for x, y in zip(a, b, strict=False)]


@few
@given(items, items)
def test_compose_alignment(a, b):
    pairs = [(x, y, 7) for x, y in zip(a, b, strict=False)]
    tail = of([(y, 7) for y in b])
    assert list(reader.compose(of(a), tail, check_alignment=False)()) == pairs
    if len(a) == len(b):
        assert list(reader.compose(of(a), tail)()) == pairs
    else:
        with pytest.raises(reader.ComposeNotAligned):
            list(reader.compose(of(a), tail)())
    with pytest.raises(TypeError):
        reader.compose(of(a), nonsense=1)


def test_compose_accepts_arrays_and_none():
    array = np.zeros(3)
    assert list(reader.compose(of([None]), of([array]))()) == [(None, array)]


def test_cache_reads_once():
    calls = []

    def source():
        calls.append(1)
        yield 5

    cached = reader.cache(source)
    assert list(cached()) == list(cached()) == [5]
    assert calls == [1]


@few
@given(items, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_xmap_maps_everything(values, workers, size, order):
    got = list(reader.xmap_readers(lambda v: v * 2, of(values), workers, size, order)())
    want = [v * 2 for v in values]
    assert got == want if order else sorted(got) == sorted(want)


def test_xmap_ordered_keeps_order_when_early_samples_are_slow():
    def slow_first(v):
        time.sleep(0.05 if v % 4 == 0 else 0)
        return v

    assert list(reader.xmap_readers(slow_first, of(range(12)), 4, 3, True)()) == list(range(12))


def test_xmap_runs_in_parallel_threads():
    meet = threading.Barrier(3)

    def mapper(v):
        meet.wait(timeout=5)
        return v

    assert sorted(reader.xmap_readers(mapper, of(range(6)), 3, 6)()) == list(range(6))


def failing_source():
    yield 1
    raise KeyError("source")


def fail_on_two(v):
    if v == 2:
        raise ZeroDivisionError("mapper")
    return v


@pytest.mark.parametrize("order", [True, False])
def test_xmap_errors_reach_the_consumer(order):
    with pytest.raises(KeyError, match="source"):
        list(reader.xmap_readers(lambda v: v, failing_source, 2, 2, order)())
    with pytest.raises(ZeroDivisionError):
        list(reader.xmap_readers(fail_on_two, of(range(100)), 2, 2, order)())
    with pytest.raises(KeyError, match="source"):
        list(reader.buffered(failing_source, 1)())
    assert settled(lambda: not own_threads())


def endless():
    n = 0
    while True:
        yield n
        n += 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: reader.buffered(endless, 3),
        lambda: reader.xmap_readers(lambda v: v, endless, 3, 2, True),
        lambda: reader.xmap_readers(lambda v: v, endless, 3, 2, False),
    ],
)
def test_abandoned_iteration_ends_its_threads(make):
    iterator = make()()
    for _ in range(5):
        next(iterator)
    assert own_threads()
    iterator.close()
    assert settled(lambda: not own_threads())


def test_readers_work_only_so_far_ahead():
    taken = []

    def source():
        for n in range(1000):
            taken.append(n)
            yield n

    iterator = reader.xmap_readers(lambda v: v, source, 2, 4, True)()
    next(iterator)
    time.sleep(0.1)
    assert len(taken) <= 8
    iterator.close()


@pytest.mark.parametrize("use_pipe", [True, False])
def test_multiprocess_merges_real_processes(use_pipe):
    def pids():
        yield "pid", os.getpid()

    def arrays():
        for n in range(3):
            yield n, np.full(2, n)

    got = list(reader.multiprocess_reader([pids, arrays, arrays], use_pipe, 2)())
    assert len(got) == 7
    assert [v for k, v in got if k == "pid"] != [os.getpid()]
    assert sorted(int(a.sum()) for k, a in got if k != "pid") == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("use_pipe", [True, False])
def test_multiprocess_failures(use_pipe):
    def none():
        yield None

    def killed():
        yield 1
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    def unpicklable():
        yield lambda: 0

    for source, error in (
        (failing_source, KeyError),
        (none, ValueError),
        (killed, RuntimeError),
        (unpicklable, Exception),
    ):
        with pytest.raises(error):
            list(reader.multiprocess_reader([source], use_pipe)())
    with pytest.raises(AssertionError):
        reader.multiprocess_reader([], use_pipe)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("use_pipe", [True, False])
def test_multiprocess_abandoned(use_pipe):
    iterator = reader.multiprocess_reader([endless, endless], use_pipe, 3)()
    next(iterator)
    assert len(multiprocessing.active_children()) == 2
    iterator.close()
    assert not multiprocessing.active_children()


def test_creators_and_streams(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("eins\nzwei\n\nfünf", encoding="utf-8")
    assert list(reader.creator.text_file(str(path))()) == ["eins", "zwei", "", "fünf"]
    rows = list(reader.creator.np_array(np.arange(4).reshape(2, 2))())
    assert [r.tolist() for r in rows] == [[0, 1], [2, 3]]
    lines = reader.PipeReader(f"cat {path}", bufsize=3).get_line()
    assert list(lines) == ["eins", "zwei", "", "fünf"]
    with pytest.raises(RuntimeError, match="exit code"):
        list(reader.PipeReader("false").get_line())
    assert list(reader.Fake()(of([4, 5]), 3)()) == [4, 4, 4]
