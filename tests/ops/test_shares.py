"""Operators whose output may lie in the memory of an input say so (`shares`): found on the cases of PaddlePaddle 1.8.5."""

import functools

import pytest
import torch
from test_golden import ARGS, CHECK, FILES

import millstream.fluid as fluid
from millstream.ops._opdef import REGISTRY
from millstream.ops._values import Ragged


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value] if value.numel() and value.device.type == "cpu" else []
    if isinstance(value, Ragged):
        return _tensors(value.values)
    return [t for v in value for t in _tensors(v)] if isinstance(value, (list, tuple)) else []


def _watched(name, kernel, found):
    @functools.wraps(kernel)
    def run(*args, **kwargs):
        given = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        result = kernel(*args, **kwargs)
        if any(t.untyped_storage().data_ptr() in given for t in _tensors((result,))):
            found.add(name)
        return result

    return run


@pytest.mark.slow
def test_who_shares_memory_says_so(monkeypatch):
    """Gradients need not: they share the memory of other gradients, which nobody updates. Optimizers are those who update;
    statistics are written onto their own variables; hierarchical_sigmoid has W_Out for Fluid's sake, nobody reads it."""
    found = set()
    known = {"hierarchical_sigmoid"}
    for name, definition in REGISTRY._defs.items():
        free = name.endswith("_grad") or name in known or not {"Param", "Mean"}.isdisjoint(definition.in_slots)
        free = free or any(s.inout for s in definition.outputs)
        if not (definition.block or free or definition.extra.get("shares")):
            monkeypatch.setattr(definition, "kernel", _watched(name, definition.kernel, found))
    executor = fluid.Executor(fluid.CPUPlace())
    for path in FILES:
        document, arrays = CHECK.load_op(path)
        CHECK.run_cases(fluid, executor, document["cases"], arrays, ARGS)
    assert not found
