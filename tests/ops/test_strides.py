"""Every kernel again over operands that are not contiguous in memory: slices, transposes and expanded gradients are."""

import argparse
import glob
import importlib.util
import os

import pytest
import torch

import millstream.fluid as fluid
from millstream.ops import REGISTRY, Ragged, TensorArray

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SPEC = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CHECK)
ARGS = argparse.Namespace(timeout=0, infer=False)


def strided(value):
    """The same values in memory with gaps."""
    if isinstance(value, torch.Tensor) and value.dim() and value.numel():
        wide = torch.zeros(*value.shape, 2, dtype=value.dtype)
        wide[..., 0] = value
        return wide[..., 0]
    if isinstance(value, Ragged):
        return value if value.values is None else Ragged(strided(value.values), value.lod)
    if isinstance(value, list) and not isinstance(value, TensorArray):
        return [strided(v) for v in value]
    return value


@pytest.fixture
def strided_operands(monkeypatch):
    for definition in list(REGISTRY._defs.values()):
        if not definition.block:
            kernel = definition.kernel
            monkeypatch.setattr(definition, "kernel", lambda *a, _k=kernel, **kw: _k(*map(strided, a), **kw))


@pytest.mark.filterwarnings("ignore:.*searchsorted")
def test_strides_do_not_matter(strided_operands):
    executor = fluid.Executor(fluid.CPUPlace())
    wrong = []
    for path in sorted(glob.glob(os.path.join(GOLDEN, "cases", "*.json"))):
        document, arrays = CHECK.load_op(path)
        found = CHECK.run_cases(fluid, executor, document["cases"], arrays, ARGS)
        wrong += [f"{case['id']}: {'; '.join(lines)}" for case, lines in zip(document["cases"], found) if lines]
    assert not wrong, "\n".join(wrong)
