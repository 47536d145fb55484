"""Parts of a kernel in several threads: all run, an error comes out after the others have ended."""

import multiprocessing
import threading
import time
from functools import partial

import pytest
import torch

from millstream.kernels import threads


def test_all_parts_run_and_the_first_in_this_thread():
    seen = {}
    threads.run_parts(lambda k: seen.update({k: threading.current_thread()}), [(k,) for k in range(3)])
    assert sorted(seen) == [0, 1, 2] and seen[0] is threading.current_thread() is not seen[1]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_out_when_the_others_have_ended(bad):
    ended = []

    def kernel(k):
        if k == bad:
            raise ValueError(k)
        time.sleep(0.02)
        ended.append(k)

    with pytest.raises(ValueError, match=str(bad)):
        threads.run_parts(kernel, [(0,), (1,)])
    assert ended == [1 - bad]


def test_as_many_as_torch_and_as_are_worth_it():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert [threads.parts(w, 9) for w in (0, threads.WORTH, 100 * threads.WORTH)] == [1, 2, 2]
        assert threads.parts(100 * threads.WORTH, 1) == 1 and threads.parts(100 * threads.WORTH, 0) == 1
        torch.set_num_threads(1)
        assert threads.parts(100 * threads.WORTH, 9) == 1
    finally:
        torch.set_num_threads(before)


def child(results):
    threads.run_parts(results.put, [(1,), (2,)])


def test_a_forked_process_starts_threads_of_its_own():
    threads.run_parts(lambda: None, [(), ()])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and sorted([results.get(), results.get()]) == [1, 2]


def test_workers_share_the_cores():
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(4)
        for workers, each in ((2, 2), (3, 1), (8, 1)):
            shares = threads.Shares(workers)
            team = [
                threading.Thread(target=lambda s=shares: (s.take(), seen.append(torch.get_num_threads())))
                for _ in range(workers)
            ]
            for worker in team:
                worker.start()
                worker.join()
            shares.restore()
            assert set(seen) == {each} and torch.get_num_threads() == 4
            later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            later.start()
            later.join()
            assert seen.pop() == 4
            seen.clear()
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_jobs_run_once_each_with_one_share_of_the_cores(two_threads, apart, count):
    shares, seen = threads.Shares(max(count, 2)), []
    if not shares.in_team:
        pytest.skip("torch without an OpenMP runtime that has GOMP_parallel")

    def job(k):
        torch.ones(300, 300) @ torch.ones(300, 300)
        time.sleep(0.005)
        seen.append((k, torch.get_num_threads(), threading.get_ident()))

    shares.run([partial(job, k) for k in range(count)], apart)
    assert sorted(k for k, _, _ in seen) == list(range(count)) and {n for _, n, _ in seen} == {1}
    assert len({who for _, _, who in seen}) == (2 if apart and count > 1 else 1)
    assert torch.get_num_threads() == 2


def test_the_first_error_of_jobs_comes_out_when_all_have_ended(two_threads):
    ended = []

    def job(k):
        time.sleep(0.005 * (4 - k))
        ended.append(k)
        if k in (1, 3):
            raise KeyboardInterrupt if k == 1 else ValueError

    for apart in (False, True):
        with pytest.raises(KeyboardInterrupt):
            threads.Shares(2).run([partial(job, k) for k in range(4)], apart)
        assert sorted(ended) == [0, 1, 2, 3] and torch.get_num_threads() == 2
        ended.clear()
