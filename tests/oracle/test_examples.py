"""The examples of the reference pages print the same under PaddlePaddle 1.8.5."""

import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")
sys.path.insert(0, os.path.join(ROOT, "docs"))
import pages as reference  # noqa: E402

# what 1.8.5 does otherwise -> why
OTHERWISE = {
    "contrib.HDFSClient": "fails on Python 3",
    "contrib.op_freq_statistic": "fails on Python 3",
    "debugger.pprint_program_codes": "another text",
    "debugger.draw_block_graphviz": "calls the program dot there",
    "debugger.prepare_fast_nan_inf_debug": "a file of checks is written there",
    "dygraph.DataParallel": "one process without CUDA has no strategy there",
    "dygraph.NCE": "prints a word on sparse mode first",
    "dygraph.dygraph_to_static.convert_to_static": "gives a pair there, of which the second is a syntax tree",
    "initializer.init_on_cpu": "of 1.1, gone there",
    "io.TensorDataset": "of later versions, not there",
    "layers.Uniform": "draws between -high and high there",
    "layers.hash": "the layer fails there",
    "layers.load": "the operator finds no output there",
    "layers.nce": "prints a word on sparse mode first",
    "layers.hsigmoid": "prints a word on sparse mode first",
    "layers.tensor.save": "the layer names its slots wrongly there",
    "optimizer.Optimizer": "the name is not there",
    "optimizer.DGCMomentumOptimizer": "needs CUDA there",
    "paddle.version.show": "built with MKL there",
    "profiler.profiler": "prints its report past Python",
    "profiler.start_profiler": "prints its report past Python",
}
PAGES = [page for page in reference.pages() if not page.name.startswith("datasets")]  # they would be downloaded


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON is not set")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_same_output(page, tmp_path):
    out = tmp_path / "printed.json"
    command = [ORACLE, os.path.join(HERE, "run_examples.py"), str(out), page.name]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = json.loads(out.read_text())[page.name]
    different = []
    for example, (names, there) in zip(page.examples, printed):
        here = reference.run(page, example)
        if names[0] not in OTHERWISE and here != there:
            different.append(f"{', '.join(names)}: here\n{here}\n1.8.5\n{there}")
    assert not different, "\n\n".join(different)
