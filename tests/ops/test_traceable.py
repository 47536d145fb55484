"""Operators marked `traceable`: autograd through the kernel gives the gradient that 1.8.5 recorded."""

import importlib.util
import os

import numpy as np
import pytest
import torch

from millstream.ops import REGISTRY, Ragged
from millstream.ops._grad import as_tuple
from millstream.ops._infer import coerce_value
from millstream.runtime.tensor import lod_from_lengths

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SPEC = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CHECK)
MARKED = [
    d.name
    for d in REGISTRY.declared()
    if d.extra.get("traceable") and os.path.exists(os.path.join(GOLDEN, "cases", d.name + ".json"))
]


def run(definition, case, feeds):
    """(outputs by variable name, leaves by variable name)."""
    op, leaves = case["ops"][0], {}
    lods = {v["name"]: lod_from_lengths(v.get("lod") or []) for v in case["feeds"]}

    def value(name, slot):
        if name not in leaves:
            leaf = torch.from_numpy(np.ascontiguousarray(feeds[name]["value"])).clone()
            leaves[name] = leaf.requires_grad_() if leaf.is_floating_point() else leaf
        return Ragged(leaves[name], lods[name]) if slot.ragged else leaves[name]

    args = []
    for slot in definition.inputs:
        given = [value(n, slot) for n in op["inputs"].get(slot.name, [])]
        args.append(given if slot.many else (given[0] if given else None))
    kwargs = {
        n: coerce_value(definition.name, n, a, op["attrs"][n]) if n in op["attrs"] else a.default
        for n, a in definition.attrs.items()
    }
    results = {}
    for slot, out in zip(definition.outputs, as_tuple(definition.kernel(*args, **kwargs))):
        for name, item in zip(op["outputs"].get(slot.name, []), out if slot.many else [out]):
            results[name] = item.values if isinstance(item, Ragged) else item
    return results, leaves


@pytest.mark.parametrize("name", MARKED)
def test_autograd_gives_the_declared_gradient(name):
    document, arrays = CHECK.load_op(os.path.join(GOLDEN, "cases", name + ".json"))
    compared = 0
    for case in document["cases"]:
        if not case.get("grad") or len(case["ops"]) != 1:
            continue
        feeds, weights = CHECK.case_inputs(case, arrays)
        results, leaves = run(REGISTRY.get(name), case, feeds)
        sum((results[o["name"]] * torch.from_numpy(weights[o["name"]])).sum() for o in case["grad"]["of"]).backward()
        for x in case["grad"]["wrt"]:
            if x.get("none") or x.get("type") == "SELECTED_ROWS":
                continue
            want = arrays[x["key"]]
            rtol, atol = CHECK.tolerances(case, "grad", want.dtype)
            assert CHECK.diff(leaves[x["name"]].grad.numpy(), want, rtol, atol) is None, (case["id"], x["name"])
            compared += 1
    assert compared or name in ("lookup_table", "lookup_table_v2")
