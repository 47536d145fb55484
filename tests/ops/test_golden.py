"""Every operator against cases recorded from PaddlePaddle 1.8.5 (tests/golden): values, LoD, shapes, gradients."""

import argparse
import glob
import importlib.util
import os

import pytest

import millstream.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(os.path.dirname(HERE), "golden")
FILES = sorted(glob.glob(os.path.join(GOLDEN, "cases", "*.json")))
ARGS = argparse.Namespace(timeout=0, infer=True)


def _checker():
    spec = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = _checker()


def test_there_are_cases():
    assert len(FILES) >= 380


@pytest.mark.parametrize("path", FILES, ids=[os.path.basename(f)[:-5] for f in FILES])
def test_operator(path):
    document, arrays = CHECK.load_op(path)
    executor = fluid.Executor(fluid.CPUPlace())
    results = CHECK.run_cases(fluid, executor, document["cases"], arrays, ARGS)
    wrong = [f"{case['id']}: {'; '.join(found)}" for case, found in zip(document["cases"], results) if found]
    assert not wrong, "\n".join(wrong)
