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


def test_bygone_names_are_there(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", "run", str(path)],
        env=dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("float64 2 True object\nTrue True 6 2.5 [False, True]\nTrue True ['a', 'b']\nTrue True\n")
