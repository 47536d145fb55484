"""Parts of a compiled kernel in torch's threads: every part runs once, over the right arguments, and memory stays whole."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from numba import njit

from millstream.kernels import openmp, team

pytestmark = pytest.mark.skipif(not openmp.available(), reason="torch without an OpenMP runtime that has GOMP_parallel")


@njit(nogil=True)
def fill(out, first, last, shape, factor, negative):
    (rows, columns), room = shape, np.empty(last - first)
    for i in range(first, last):
        room[i - first] = rows * columns + factor * i
    for i in range(first, last):
        out[i] += -room[i - first] if negative else room[i - first]


@njit(nogil=True)
def fails(out, k):
    if k == 1:
        raise ValueError("part")
    out[k] = 1


@njit(nogil=True)
def gives(k):
    return k


@njit(nogil=True)
def takes_pair(pair):
    pair[0][0] = 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def filled(parts, length=1000):
    out, edges = np.zeros(length, np.float32), np.linspace(0, length, parts + 1).astype(int)
    calls = [(out, int(a), int(b), (3, 5), 0.5, True) for a, b in pairwise(edges)]
    team.run(fill, calls)
    return out


@pytest.mark.parametrize("parts", [1, 2, 3, 17])
def test_every_part_runs_once(parts, two_threads):
    np.testing.assert_array_equal(filled(parts), -(15 + 0.5 * np.arange(1000)).astype(np.float32))


def test_arguments_live_no_longer_than_the_call(two_threads):
    out = np.zeros(10, np.float32)
    references = sys.getrefcount(out)
    for _ in range(50):
        team.run(fill, [(out, 0, 5, (1, 1), 1.0, False), (out, 5, 10, (1, 1), 1.0, False)])
    gc.collect()
    assert sys.getrefcount(out) == references and out[3] == 50 * 4


def test_a_failed_part_is_told_and_the_others_run(two_threads):
    out = np.zeros(3)
    with pytest.raises(RuntimeError, match="fails: failed inside a thread"):
        team.run(fails, [(out, k) for k in range(3)])
    assert out.tolist() == [1, 0, 1]


def test_kernels_that_cannot_run_in_parts_are_refused():
    with pytest.raises(Exception, match="must not return anything"):
        team.run(gives, [(1,), (2,)])
    with pytest.raises(Exception, match="numbers, arrays and tuples of numbers"):
        team.run(takes_pair, [((np.zeros(1), np.zeros(1)),)])


def test_several_threads_of_the_user_at_once(two_threads):
    wrong = []

    def work():
        for _ in range(30):
            if not np.array_equal(filled(4), -(15 + 0.5 * np.arange(1000)).astype(np.float32)):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def child(results):
    results.put(openmp.available())


def test_a_forked_process_has_no_team(two_threads):
    filled(2)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and results.get() is False


def test_compiled_parts_are_kept_on_disk(two_threads):
    from millstream.kernels import tiles

    a, b, first, out = torch.ones(4, 16), torch.ones(16, 32), torch.zeros(32), torch.zeros(4, 32)
    call = (a.data_ptr(), 16, b.data_ptr(), 32, first.data_ptr(), out.data_ptr(), 4, 16, 32)
    team.run(tiles.many_rows_at, [call])
    folder = os.path.dirname(team._handing(tiles.many_rows_at).stats.cache_path + "/")
    assert any("many_rows_at_part" in name for name in os.listdir(folder)) and bool((out == 16).all())


KERNEL = """
from millstream.kernels.compiled import njit

@njit(cache=True, nogil=True)
def fill(out, value):
    for k in range(len(out)):
        out[k] = value
"""
SCRIPT = """
import numpy as np
from millstream.kernels import openmp, team
from kernel import fill
for kind in ("float32", "float64"):
    out = np.zeros(6, kind)
    team.run(fill, [(out[:3], 1), (out[3:], 2)])
    print(out.sum(), sum(team._handing(fill).stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_parts_from_the_cache_find_their_kernel(tmp_path):
    (tmp_path / "kernel.py").write_text(KERNEL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command, seen = [sys.executable, "-c", SCRIPT], []
    for _ in range(2):
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        seen.append(run.stdout.split())
    assert seen == [["9.0", "0", "9.0", "0"], ["9.0", "1", "9.0", "2"]]
