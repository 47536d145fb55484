"""Programs that use names of numpy 1.x and Python 3.7."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = """
import collections, inspect, threading, time
import numpy as np
from collections import Iterable
x = np.zeros([2], np.float)
print(x.dtype, np.ones(2, dtype=np.int).sum(), np.array([1], np.bool).all(), np.array(["a"], dtype=np.object).dtype)
print(np.Inf > 1, np.NaN != np.NaN, np.product([2, 3]), np.asscalar(np.array([2.5])), np.in1d([1, 2], [2]).tolist())
print(isinstance([], Iterable), isinstance({}, collections.Mapping), inspect.getargspec(lambda a, b=1: 0).args)
print(time.clock() >= 0, threading.current_thread().isAlive())
"""
REFUSED = """
import distutils.util, json, random
import numpy as np
print([np.float32(0.5)], {"x": np.int64(3)}, (np.bool_(True),), repr(np.str_("s")))
print(np.array([[1, 2], [3]]).dtype, len(np.asarray([[1], [2, 3]])), np.array(np.arange(2), copy=False))
print(np.fromstring(b"\\x01\\x02", np.uint8), np.fromstring("1 2", sep=" "), np.vstack(np.zeros(1) for _ in range(2)).shape)
a = np.arange(6).reshape(2, 3)
a.itemset(4, 9)
a.itemset((0, 0), 7)
print(a.ptp(axis=1), a[:1, :1].tostring() == a[:1, :1].tobytes(), a.newbyteorder().shape)
print(np.histogram([1], normed=False)[0].sum(), np.mat([[1]]).shape, np.cast["float32"](3).dtype, np.lib.pad([1], 1, "edge"))
print(distutils.util.strtobool("yes"), json.loads("[1]", encoding="utf8"), random.sample({1}, 1))
x = [1, 2, 3]
random.shuffle(x, lambda: 0.0)
print(x)
"""


def run(folder, text):
    path = folder / "old.py"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", "run", str(path)],
        env=dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bygone_names_are_there(tmp_path):
    lines = ("float64 2 True object", "True True 6 2.5 [False, True]", "True True ['a', 'b']", "True True")
    assert run(tmp_path, PROGRAM).splitlines() == list(lines)


def test_what_numpy_and_python_took_and_printed(tmp_path):
    lines = (
        "[0.5] {'x': 3} (True,) 's'",
        "object 2 [0 1]",
        "[1 2] [1. 2.] (2, 1)",
        "[6 6] True (2, 3)",
        "1 (1, 1) float32 [1 1 1]",
        "1 [1] [1]",
        "[2, 3, 1]",
    )
    assert run(tmp_path, REFUSED).splitlines() == list(lines)


def test_kernels_compile_beside_the_old_functions(tmp_path):
    text = """
import numpy as np, paddle.fluid as fluid
x = fluid.layers.data("x", [1], dtype="int64", lod_level=1)
h = fluid.layers.fc(fluid.layers.embedding(x, [5, 4]), 12)
out = fluid.layers.sequence_pool(fluid.layers.dynamic_gru(h, 4), "last")
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
print(exe.run(feed={"x": fluid.create_lod_tensor(np.array([[1], [2], [3]]), [[2, 1]], None)}, fetch_list=[out])[0].shape)
"""
    assert run(tmp_path, text) == "(2, 4)\n"
