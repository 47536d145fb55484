"""Scripts of the years of Fluid, run by ``millstream run`` unmodified; the .txt files are what 1.8.5 printed."""

import math
import os
import re
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
SCRIPTS = sorted(n[:-3] for n in os.listdir(HERE) if n.endswith(".py") and n != "test_scripts.py")


def parts(text):
    """The words between numbers, and the numbers; numpy's line breaks don't count."""
    return "".join(NUMBER.sub("#", text).split()), [float(n) for n in NUMBER.findall(text)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_prints_what_1_8_5_printed(name, tmp_path):
    path = os.path.join(HERE, name + ".py")
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", "run", path],
        env=dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1", TMPDIR=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with open(os.path.join(HERE, name + ".txt"), encoding="utf-8") as recorded:
        words, numbers = parts(recorded.read())
    got_words, got_numbers = parts(done.stdout)
    assert got_words == words
    assert len(got_numbers) == len(numbers)
    wrong = [(a, b) for a, b in zip(numbers, got_numbers) if not math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-4)]
    assert not wrong, wrong
