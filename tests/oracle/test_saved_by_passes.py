"""PaddlePaddle 1.8.5 runs what the pass pipelines for it leave of the model families: with the results of the plain models."""

import os
import subprocess
import sys

import numpy as np
import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [os.path.join(TESTS, "programs"), os.path.join(TESTS, "passes")]

from families import all_families  # noqa: E402
from inference_models import optimised, run, save  # noqa: E402
from millstream import fluid  # noqa: E402
from millstream.passes import pipelines  # noqa: E402

ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")
NAMES = {"fluid": pipelines.FLUID, "fluid_onednn": pipelines.FLUID_ONEDNN}
# two boxes of equal score change places under oneDNN
UNORDERED = ("detect/ssd-normalised",)


def write(folder, module, variant, names):
    """Save the optimised form of a family and its inputs in `folder`; the plain form's results here."""
    plain = os.path.join(folder, "plain")
    with fluid.scope_guard(fluid.Scope()):
        feed = save(plain, module, variant)
    with fluid.scope_guard(fluid.Scope()):
        work, feeds, fetches, program = optimised(plain, names)
        want = run(program, feed, fetches)
        work.program._touch()
        copy = work.program.clone()
        targets = [copy.global_block().var(v.name) for v in fetches]
        fluid.io.save_inference_model(os.path.join(folder, "model"), feeds, targets, fluid.Executor(), main_program=copy)
    arrays = {}
    for name, value in feed.items():
        arrays[name] = np.array(value)
        for level, lengths in enumerate(getattr(value, "recursive_sequence_lengths", list)()):
            arrays["%s.lengths%d" % (name, level)] = np.array(lengths, "int64")
    np.savez(os.path.join(folder, "model", "inputs.npz"), **arrays)
    return want


def in_order(rows):
    """Rows sorted by their columns."""
    return rows[np.lexsort(rows.round(3).T)]


def differences(want, folder, unordered):
    with np.load(os.path.join(folder, "outputs.npz"), allow_pickle=False) as found:
        for k, (value, lod) in enumerate(want):
            got = found["out%d" % k]
            if unordered:
                got, value = in_order(got), in_order(value)
            if got.shape != value.shape:
                yield "out%d: shape %s, not %s" % (k, got.shape, value.shape)
            elif not np.allclose(got, value, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(value).max(initial=0)))):
                yield "out%d: differs by %g" % (k, np.abs(got.astype("float64") - value).max())
            for level, offsets in enumerate(lod):
                if found["out%d.lengths%d" % (k, level)].tolist() != np.diff(offsets).tolist():
                    yield "out%d: other lengths" % k


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON names no interpreter with PaddlePaddle 1.8.5")
@pytest.mark.filterwarnings("ignore:save_inference_model")
@pytest.mark.parametrize("kind", sorted(NAMES))
def test_1_8_5_runs_what_passes_leave(kind, tmp_path):
    wants, models = {}, tmp_path / "models"
    models.mkdir()
    for name, module, variant in all_families():
        flat = name.replace("/", ".")
        folder = tmp_path / flat
        folder.mkdir()
        wants[name] = write(str(folder), module, variant, NAMES[kind])
        (folder / "model").rename(models / flat)
    command = [ORACLE, os.path.join(HERE, "infer_saved.py"), str(models)]
    onednn = "1" if kind == "fluid_onednn" else "0"
    environment = dict(os.environ, OMP_NUM_THREADS="1", FLAGS_use_mkldnn=onednn)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = {n: list(differences(w, str(models / n.replace("/", ".")), n in UNORDERED)) for n, w in wants.items()}
    assert not {name: lines for name, lines in found.items() if lines}
