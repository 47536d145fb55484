"""What numba's compiler leaves in memory, and what its cache is good for."""

import os
import subprocess
import sys

import pytest

from millstream.kernels import compiled
from millstream.kernels.compiled import njit, unwritten

told = pytest.mark.skipif(not unwritten("libllvmlite"), reason="the system does not tell of its memory maps")


def resident(maps):
    """Bytes of the maps that are in memory, by the system's account of pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = 0
    with open("/proc/self/pagemap", "rb") as pages:
        for begin, length in maps:
            pages.seek(begin // page * 8)
            entries = pages.read(length // page * 8)
            total += page * sum(entry >> 7 for entry in entries[7::8])
    return total


@told
def test_the_compiler_leaves_no_pages_and_works_again():
    maps = unwritten("libllvmlite")
    assert sum(length for _, length in maps) > 10 << 20

    @njit
    def doubled(x):
        return x + x

    assert doubled(2) == 4
    assert resident(maps) < 1 << 20
    assert doubled(2.5) == 5.0  # another type: compiled anew
    assert doubled(2) == 4


PRODUCT = """
import sys
import numpy as np
from millstream.kernels import compiled
from millstream.kernels.rows import merge
merge(np.array([1, 2, 1]), np.ones((3, 4), np.float32))
print("scipy.linalg" in sys.modules)
import numba

@numba.njit
def product(a, b):
    return a.dot(b)

print(product(np.full((2, 2), 3.0), np.ones((2, 2))).sum(), "scipy.linalg" in sys.modules)
"""


def test_linear_algebra_comes_for_those_who_ask():
    run = subprocess.run([sys.executable, "-c", PRODUCT], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "24.0", "True"]


@told
def test_pages_go_while_the_compiler_runs():
    seen = []
    leaving = compiled._Leave()
    leaving.on_start(None)
    for _ in range(3 * compiled._EVERY):
        leaving.after_call()
        seen.append(leaving._limit)
    assert seen[: compiled._EVERY - 1] == [0] * (compiled._EVERY - 1)
    assert seen[-1] >= compiled._MOST_PAGES


def test_no_library_no_maps():
    assert unwritten("no such library") == []


KERNEL = """
from millstream.kernels.compiled import njit
from other import FACTOR

@njit(cache=True)
def scaled(x):
    return FACTOR * x
"""
RUN = """
import sys
from millstream.kernels import compiled
compiled._SOURCES = sys.argv[1]
from kernel import scaled
print(scaled(2.0), sum(scaled.stats.cache_hits.values()))
"""


def test_cached_code_is_for_the_files_as_they_stand(tmp_path):
    """A constant of another file is compiled in; numba alone would keep the old one."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    seen = []
    for factor, sources in ((3.0, "a"), (3.0, "a"), (5.0, "b"), (5.0, "b")):
        (tmp_path / "other.py").write_text(f"FACTOR = {factor}")
        found = os.pathsep.join([str(tmp_path), *sys.path])
        environment = {**os.environ, "PYTHONPATH": found, "PYTHONDONTWRITEBYTECODE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", RUN, sources], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        seen.append(run.stdout.split())
    assert seen == [["6.0", "0"], ["6.0", "1"], ["10.0", "0"], ["10.0", "1"]]


def test_a_change_beside_is_seen(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    before = compiled._digest(tmp_path)
    (tmp_path / "b.py").write_text("")
    after = compiled._digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert len({before, after, compiled._digest(tmp_path)}) == 3
