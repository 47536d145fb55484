"""Imperative programs on millstream against their recordings from PaddlePaddle 1.8.5."""

import json
import os
import subprocess

import numpy as np
import pytest
from millstream import fluid

from dygraph_model import dygraph_programs, load_dygraph_states, run_dygraph, save_dygraph_states
from replay import RECORDED, difference

HERE = os.path.dirname(os.path.abspath(__file__))
ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")
PROGRAMS = dygraph_programs()
# A bias of the keys shifts all attention scores of a query alike, so its gradient is zero but for rounding, which Adam
# scales up to steps of the full rate: the recorded values mean nothing.
NOISE = {"nets-attention": {"final.k.bias"}}
SAVED = ("nets-lenet", "nets-text", "nets-attention")


def recorded_facts():
    with open(os.path.join(RECORDED, "dygraph.json")) as source:
        return json.load(source)


@pytest.mark.parametrize("name,module,variant", PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_imperative(name, module, variant):
    with np.load(os.path.join(RECORDED, "dygraph", name + ".npz"), allow_pickle=False) as source:
        want = dict(source)
    facts, got = run_dygraph(fluid, module, variant, want)
    assert facts == recorded_facts()[name]
    found = []
    for step, (a, b) in enumerate(zip(got["loss"], want["loss"])):
        if abs(a - b) > 1e-4 * abs(b) + 1e-6:
            found.append("loss at step %d: want %.7g, got %.7g" % (step, b, a))
            break
    found += [difference(key, got[key], want[key], 1e-3) for key in sorted(set(want) - {"loss"} - NOISE.get(name, set()))]
    found = [line for line in found if line]
    assert not found, "\n".join(found)


def compare_states(got, want):
    found = ["%s: missing" % key for key in sorted(set(want) - set(got))]
    found += [difference(key, got[key], want[key], 1e-6, 1e-7) for key in sorted(set(want) & set(got))]
    return [line for line in found if line]


@pytest.mark.parametrize("name", SAVED)
def test_states_saved_by_1_8_5(name):
    path = os.path.join(RECORDED, "saved", "dygraph", name)
    with np.load(path + ".npz", allow_pickle=False) as source:
        assert not compare_states(load_dygraph_states(fluid, path), dict(source))


@pytest.mark.parametrize("name", SAVED)
def test_states_saved_here(name, tmp_path):
    module, variant = next(p[1:] for p in PROGRAMS if p[0] == name)
    path = str(tmp_path / "model")
    want = save_dygraph_states(fluid, module, variant, path)
    assert not compare_states(load_dygraph_states(fluid, path), want)


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON names no interpreter with PaddlePaddle 1.8.5")
@pytest.mark.parametrize("name", SAVED)
def test_1_8_5_loads_states_saved_here(name, tmp_path):
    module, variant = next(p[1:] for p in PROGRAMS if p[0] == name)
    path, result = str(tmp_path / "model"), str(tmp_path / "result.npz")
    want = save_dygraph_states(fluid, module, variant, path)
    command = [ORACLE, os.path.join(HERE, "both_ways.py"), "dygraph:" + name, path, result]
    run = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
    with np.load(result, allow_pickle=False) as arrays:
        assert not compare_states(dict(arrays), want)
