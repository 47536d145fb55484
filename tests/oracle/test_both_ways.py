"""Files go both ways: millstream runs folders saved by PaddlePaddle 1.8.5, and 1.8.5 runs those saved by millstream."""

import os
import subprocess
import zipfile

import numpy as np
import pytest
from millstream import fluid

from program_model import Built
from replay import RECORDED, difference
from saved_files import FORMS, SAVED, find_program, infer, save_all, train_a_little

HERE = os.path.dirname(os.path.abspath(__file__))
ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")


def unpack(name, target):
    with zipfile.ZipFile(os.path.join(RECORDED, "saved", name + ".zip")) as source:
        source.extractall(str(target))
    return str(target)


def compare(arrays, form, out, lens):
    found = [difference(form, out, arrays[form], 1e-4, 1e-6)]
    want = [list(arrays["%s.lod%d" % (form, i)]) for i in range(3) if "%s.lod%d" % (form, i) in arrays]
    if [list(level) for level in lens] != want:
        found.append("%s lengths: want %s, got %s" % (form, want, lens))
    return [line for line in found if line]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", sorted(SAVED))
def test_millstream_runs_what_1_8_5_saved(name, form, tmp_path):
    root = unpack(name, tmp_path)
    with np.load(os.path.join(RECORDED, "saved", name + ".npz"), allow_pickle=False) as arrays:
        differences = compare(dict(arrays), form, *infer(fluid, name, root, form))
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("name", sorted(SAVED))
def test_saved_again_byte_for_byte(name, tmp_path):
    """Parameters and accumulators loaded from 1.8.5's files and saved again give the same files."""
    root = unpack(name, tmp_path / "theirs")
    module, variant = find_program(name)
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        built = Built(fluid, module, variant)
        exe.run(built.startup)
        theirs, ours = os.path.join(root, "persistables"), str(tmp_path / "ours")
        fluid.io.load_persistables(exe, theirs, built.main)
        fluid.io.save_persistables(exe, ours, built.main)
    assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs))
    for file in sorted(os.listdir(theirs)):
        with open(os.path.join(theirs, file), "rb") as a, open(os.path.join(ours, file), "rb") as b:
            assert a.read() == b.read(), file


@pytest.mark.parametrize("name", sorted(SAVED))
def test_millstream_runs_what_it_saved(name, tmp_path):
    with fluid.scope_guard(fluid.Scope()):
        exe, built = train_a_little(fluid, name)
        save_all(fluid, exe, built, name, str(tmp_path))
    first, lens = infer(fluid, name, str(tmp_path), FORMS[0])
    for form in FORMS[1:]:
        out, other = infer(fluid, name, str(tmp_path), form)
        assert np.allclose(out, first, rtol=1e-5, atol=1e-6), form
        assert other == lens, form


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON names no interpreter with PaddlePaddle 1.8.5")
@pytest.mark.parametrize("name", sorted(SAVED))
def test_1_8_5_runs_what_millstream_saved(name, tmp_path):
    root = str(tmp_path / "saved")
    with fluid.scope_guard(fluid.Scope()):
        exe, built = train_a_little(fluid, name)
        save_all(fluid, exe, built, name, root)
    result = str(tmp_path / "result.npz")
    command = [ORACLE, os.path.join(HERE, "both_ways.py"), name, root, result]
    run = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-3000:]
    found = []
    with np.load(result, allow_pickle=False) as arrays:
        for form in FORMS:
            found += compare(dict(arrays), form, *infer(fluid, name, root, form))
    assert not found, "\n".join(found)
