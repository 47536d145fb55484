"""Damaged model, parameter and pickle files: a FileFormatError or a valid result, and no large allocation."""

import gc
import io
import pathlib
import tracemalloc

import numpy as np
import pytest
from corruption import damaged

from millstream.errors import FileFormatError
from millstream.files.records import read_lod_tensor, read_selected_rows, write_lod_tensor
from millstream.files.source import Source
from millstream.files.states import dump_state
from millstream.files.unpickle import read_pickle
from millstream.ir import Program
from millstream.ir.proto import program_from_bytes, program_to_bytes

RECORDED = pathlib.Path(__file__).parent / "recorded"
# damaged versions of a file; the slow suite reads more
COUNTS = pytest.mark.parametrize("count", [140, pytest.param(700, marks=pytest.mark.slow)])
SLACK = 1 << 18


def _outcomes(data: bytes, read, count: int, seed: int, slack: int = SLACK, check=None) -> dict[str, int]:
    """Read `count` damaged versions of `data`; how many were refused and how many gave a result."""
    seen = {"refused": 0, "read": 0}
    tracemalloc.start()
    try:
        for version in damaged(data, count, seed):
            gc.collect(0)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            try:
                result = read(version)
                seen["read"] += 1
            except FileFormatError as error:
                assert "<bytes>" in str(error)
                seen["refused"] += 1
                result = None
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before <= 2 * len(version) + slack, (peak - before, len(version))
            if result is not None and check is not None:
                check(result)
            del result
    finally:
        tracemalloc.stop()
    return seen


@COUNTS
@pytest.mark.parametrize("name", ["__model__", "train.pdmodel", "while.pdmodel"])
def test_models(name, count):
    data = (RECORDED / name).read_bytes()

    def check(program: Program) -> None:
        again = program_to_bytes(program)
        assert program_to_bytes(program_from_bytes(again)) == again

    # Python objects of a Program are some 30 times its bytes, hence the slack.
    seen = _outcomes(data, program_from_bytes, count, len(name), 64 * len(data), check)
    assert seen["refused"] > count // 3, seen


def _combined(data: bytes) -> list:
    source = Source(data)
    found = []
    while source.left:
        found.append(read_lod_tensor(source))
    return found


def _large_tensor() -> bytes:
    out = io.BytesIO()
    write_lod_tensor(out, np.arange(1 << 18, dtype="f4").reshape(1 << 10, -1), [np.array([0, 3, 1 << 10])])
    return out.getvalue()


@COUNTS
@pytest.mark.parametrize("which", ["t_combined", "t_float64", "rows.selected", "large"])
def test_parameters(which, count):
    data = _large_tensor() if which == "large" else (RECORDED / which).read_bytes()
    seen = _outcomes(data, read_selected_rows if which == "rows.selected" else _combined, count, 5)
    assert seen["refused"] > count // 8, seen
    assert sum(seen.values()) == count


def _large_state() -> bytes:
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    dump_state(out, {f"w_{n}": rng.random((64, 512), "f4") for n in range(6)})
    return out.getvalue()


@COUNTS
@pytest.mark.parametrize("which", ["train.pdopt", "dygraph.pdopt", "dygraph.pdparams", "large"])
def test_pickles(which, count):
    data = _large_state() if which == "large" else (RECORDED / which).read_bytes()
    seen = _outcomes(data, read_pickle, count, 7)
    assert seen["refused"] > count // 4, seen
