"""Models that passes changed, written for PaddlePaddle 1.8.5 and run by it."""

import os
import subprocess

import numpy as np
import pytest
import torch

import millstream
from millstream.inference.export import export
from millstream.inference.session import open_model

ORACLE = os.environ.get("MILLSTREAM_ORACLE_PYTHON")
SCRIPT = """
import sys
import numpy as np
import paddle.fluid as fluid
folder, feed, out = sys.argv[1:]
exe = fluid.Executor(fluid.CPUPlace())
program, _, targets = fluid.io.load_inference_model(folder, exe, "__model__", "__params__")
np.save(out, exe.run(program, feed={"x": np.load(feed)}, fetch_list=targets)[0])
"""


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE, reason="MILLSTREAM_ORACLE_PYTHON names no interpreter")
def test_fluid_1_8_5_runs_what_passes_made(image_model, image, tmp_path):
    model = open_model(image_model, None, None, torch.device("cpu"))
    export(model, "fluid", str(tmp_path / "net"))
    np.save(tmp_path / "x.npy", image)
    files = [str(tmp_path / n) for n in ("net", "x.npy", "out.npy")]
    subprocess.run([ORACLE, "-c", SCRIPT, *files], check=True, capture_output=True, timeout=120)
    assert np.allclose(np.load(files[2]), millstream.load(image_model)(image), atol=1e-5)


def test_kinds(image_model, tmp_path):
    model = open_model(image_model, None, None, torch.device("cpu"))
    with pytest.raises(ValueError, match="onnx, openvino, fluid"):
        export(model, "caffe", str(tmp_path / "net"))
    (tmp_path / "file").write_text("")
    with pytest.raises(millstream.errors.NotSupportedError, match="is a file"):
        export(model, "fluid", str(tmp_path / "file"))
