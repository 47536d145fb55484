"""jieba's paddle mode and LAC, unmodified, against what they answer under PaddlePaddle 1.8.5."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
PARTS = {"jieba": "jieba", "seg": "LAC", "lac": "LAC", "rank": "LAC"}  # and the module each needs


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What the analysers that are installed answer, from one process."""
    parts = [p for p, module in PARTS.items() if importlib.util.find_spec(module) is not None]
    out = tmp_path_factory.mktemp("answers") / "out.json"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]), OMP_NUM_THREADS="1")
    command = [sys.executable, os.path.join(HERE, "analyse.py"), str(out), "--millstream", "--only", *parts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))


def recorded(part):
    with open(os.path.join(HERE, "recorded", part + ".json"), encoding="utf-8") as source:
        return json.load(source)


@pytest.mark.skipif(importlib.util.find_spec("jieba") is None, reason="jieba is not installed")
def test_jieba(answers):
    got, want = answers, recorded("jieba")
    assert got["sentences"] == want["sentences"]
    different = []
    for sentence, mine, theirs in zip(got["sentences"], got["jieba"], want["jieba"]):
        if theirs[0] == "error":  # text without characters: 1.8.5 fails on zero rows, here there are no words
            assert not sentence.strip() and mine == [[], []]
        elif mine != theirs:
            different.append((sentence, theirs, mine))
    assert not different


@pytest.mark.skipif(importlib.util.find_spec("LAC") is None, reason="LAC is not installed")
@pytest.mark.parametrize("mode", ["seg", "lac", "rank"])
def test_lac(answers, mode):
    got, want = answers, recorded(mode)
    one_by_one, batches = got["lac"][mode]
    assert [(s, a, b) for s, a, b in zip(got["sentences"], one_by_one, want["lac"][mode][0]) if a != b] == []
    assert batches == want["lac"][mode][1]
