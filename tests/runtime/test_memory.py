"""Freed memory is kept for the next step."""

import subprocess
import sys

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import MemoryLimitError

SCRIPT = """
import resource, numpy as np, millstream.fluid as fluid
x = fluid.data("x", [None, 500, 500])
for _ in range(8):
    x = fluid.layers.relu(fluid.layers.scale(x, 1.5))
out = fluid.layers.reduce_mean(x)
exe = fluid.Executor()
feed = {"x": np.ones((4, 500, 500), "float32")}
for _ in range(4):
    exe.run(feed=feed, fetch_list=[out])
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    exe.run(feed=feed, fetch_list=[out])
from millstream.runtime.memory import keep_freed_memory
print(int(keep_freed_memory()), (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


def told(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_steps_without_page_faults():
    kept, faults = told(SCRIPT)
    if "linux" in sys.platform and not kept:
        pytest.skip("another C library")
    assert kept
    assert faults < 1000, f"{faults} page faults a step of 17 operators over 4 MB"


@pytest.mark.parametrize(("name", "value"), [("MILLSTREAM_KEEP_MEMORY_MB", "0"), ("MALLOC_ARENA_MAX", "2")])
def test_memory_is_given_back_where_the_user_has_chosen(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    assert told("from millstream.runtime.memory import keep_freed_memory; print(int(keep_freed_memory()))") == [0]


@pytest.mark.parametrize("as_array", [True, False])
def test_a_fetched_value_that_no_memory_holds(as_array):
    main = fluid.Program()
    with fluid.program_guard(main):
        y = fluid.layers.expand(fluid.data("x", [1]), [2**44])  # a view of one value
    with pytest.raises(MemoryLimitError, match=r"\[17592186044416\]: 70,368,744,177,664 bytes"):
        fluid.Executor().run(main, feed={"x": np.ones(1, "float32")}, fetch_list=[y], return_numpy=as_array)
