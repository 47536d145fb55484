"""Scripts of many small sections; recorded/*.txt are what 1.8.5 printed. An error's class is `!Name`."""

import math
import os
import re
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")
ERROR = re.compile(r"![\w|]+")
HABITS = os.path.join(os.path.dirname(HERE), "habits")
SCRIPTS = sorted(
    os.path.join(folder, n[:-4]) for folder in (HERE, HABITS) for n in os.listdir(os.path.join(folder, "recorded"))
)


def sections(text):
    found = {}
    for line in text.splitlines(True):
        if line.startswith("== "):
            name = line[3:].strip()
            found[name] = ""
        elif found:
            found[name] += line
    return found


def named(text, recorded):
    """`text` with each error that is the recorded class called by the recorded name."""
    expected = iter(ERROR.findall(recorded))
    return ERROR.sub(lambda m: e if (e := next(expected, "!"))[1:] in m[0][1:].split("|") else m[0], text)


def same(recorded, text):
    text = named(text, recorded)
    if "".join(NUMBER.sub("#", text).split()) != "".join(NUMBER.sub("#", recorded).split()):
        return False
    pairs = zip(NUMBER.findall(recorded), NUMBER.findall(text), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=2e-4, abs_tol=2e-4) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=os.path.basename)
def test_sections_print_what_1_8_5_printed(path, tmp_path):
    folder, name = os.path.split(path)
    paths = os.pathsep.join((ROOT, HERE))
    done = subprocess.run(
        [sys.executable, "-m", "millstream.cli", "run", path + ".py"],
        env=dict(os.environ, PYTHONPATH=paths, OMP_NUM_THREADS="1", TMPDIR=str(tmp_path), CPU_NUM="2"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    with open(os.path.join(folder, "recorded", name + ".txt"), encoding="utf-8") as text:
        recorded = sections(text.read())
    got = sections(done.stdout)
    assert list(got) == list(recorded)
    wrong = {k: (recorded[k], got[k]) for k in recorded if not same(recorded[k], got[k])}
    assert not wrong, (wrong, done.stderr)
