"""Operators against variations of the golden cases (tests/golden/fuzzed): every third fast, all of them as slow tests."""

import argparse
import glob
import importlib.util
import os

import pytest

import millstream.fluid as fluid

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
FILES = sorted(glob.glob(os.path.join(GOLDEN, "fuzzed", "cases", "*.json")))
SPEC = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CHECK)
ARGS = argparse.Namespace(timeout=0, infer=True)
FAMILIES = [os.path.basename(f)[:-5] for f in FILES]


def _wrong(path, step):
    document, arrays = CHECK.load_op(path)
    cases = document["cases"][::step]
    results = CHECK.run_cases(fluid, fluid.Executor(fluid.CPUPlace()), cases, arrays, ARGS)
    return [f"{case['id']}: {'; '.join(found)}" for case, found in zip(cases, results) if found]


def test_there_are_cases():
    assert sum(len(CHECK.load_op(path)[0]["cases"]) for path in FILES) >= 1500


@pytest.mark.parametrize("path", FILES, ids=FAMILIES)
def test_some(path):
    wrong = _wrong(path, 3)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=FAMILIES)
def test_all(path):
    wrong = _wrong(path, 1)
    assert not wrong, "\n".join(wrong)
