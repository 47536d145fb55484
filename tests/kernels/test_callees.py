"""Kernels that kernels call: a part of their callers, or apart and called by name."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from millstream.kernels.compiled import njit


@njit
def _half(x):
    if x < 0:
        raise ValueError("less than nothing")
    return x / 2


@njit
def _halves(x):
    for i in range(len(x)):
        x[i] = _half(x[i])


@njit(apart=True)
def _filled(x, first, last, value):
    if first > last:
        raise IndexError("backwards")
    for i in range(first, last):
        x[i] = value
    return last - first


@njit
def _twice(x, middle):
    return _filled(x, 0, middle, np.float32(1)) + _filled(x, middle, len(x), np.float32(2))


def test_a_part_of_its_caller_has_no_code_for_python_until_python_calls_it():
    x = np.array([4.0, 8.0])
    _halves(x)
    assert x.tolist() == [2, 4] and len(_halves.signatures) == 1 and not _half.signatures
    assert _half(3.0) == 1.5 and len(_half.signatures) == 1


def test_errors_of_a_part_reach_python():
    with pytest.raises(ValueError, match="less than nothing"):
        _halves(np.array([4.0, -8.0]))


def test_one_form_apart_for_constants_and_numbers():
    x = np.zeros(5, np.float32)
    assert _twice(x, 2) == 5 and x.tolist() == [1, 1, 2, 2, 2]
    assert len(_filled.signatures) == 1
    with pytest.raises(IndexError, match="backwards"):
        _twice(x, -1)
    assert _filled(x, 0, 1, np.float32(9)) == 1 and x[0] == 9  # Python calls it, too
    assert len(_filled.signatures) == 1


@njit(apart=True)
def _eighths(address):
    return address // 8


@njit
def _places(x):
    return _eighths(x.ctypes.data) + _eighths(x.ctypes.data + 8)  # uint64, and float64 to numba


def test_addresses_of_any_type_have_one_form():
    x = np.zeros(2)
    assert _places(x) == 2 * (x.ctypes.data // 8) + 1 and len(_eighths.signatures) == 1


SOURCE = """
    import numpy as np
    from millstream.kernels.compiled import njit

    @njit(cache=True, apart=True)
    def inner(x, by):
        if by == 0:
            raise ValueError("by nothing")
        for i in range(len(x)):
            x[i] *= by

    @njit(cache=True)
    def between(x, by):
        inner(x, by)

    @njit(cache=True)
    def outer(x):
        between(x, 3)

    @njit(cache=True)
    def failing(x):
        between(x, 0)

    def run():
        x = np.ones(3)
        outer(x)
        assert x.tolist() == [3, 3, 3], x
        try:
            failing(x)
        except ValueError as error:
            assert "by nothing" in str(error)
        else:
            raise AssertionError
        return sum(outer.stats.cache_hits.values()), sum(inner.stats.cache_misses.values())
"""


def test_another_process_takes_caller_and_callee_from_disk(tmp_path):
    (tmp_path / "kernels_of_a_test.py").write_text(textwrap.dedent(SOURCE))
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.getcwd(), env.get("PYTHONPATH", "")])

    def run():
        code = "import kernels_of_a_test as k; print(*k.run())"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert run() == ["0", "1"]
    assert run() == ["1", "0"]
    for path in (tmp_path / "cache").rglob("*inner*"):
        path.unlink()
    assert run() == ["1", "1"]  # what the caller calls by name is compiled again


def test_a_word_about_a_long_first_step(caplog, monkeypatch):
    from millstream.kernels import compiled

    now = [0.0]
    monkeypatch.setattr(compiled.time, "perf_counter", lambda: now[0])
    tell = compiled._Tell()
    for _ in range(3):
        tell.on_start(None)
        now[0] += 2
        tell.on_end(None)
    assert not caplog.records
    for _ in range(2):
        tell.on_start(None)
        tell.on_end(None)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "millstream warmup" in caplog.text
