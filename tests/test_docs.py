"""README and pages: every Python block runs, in order, in one namespace a page; the reference is up to date."""

import contextlib
import glob
import io
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = [os.path.join(ROOT, "README.md"), *sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


def blocks(path):
    with open(path, encoding="utf-8") as page:
        return BLOCK.findall(page.read())


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p)], ids=os.path.basename)
def test_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for number, text in enumerate(blocks(path)):
            exec(compile(text, f"{os.path.basename(path)} block {number}", "exec"), namespace)
    assert printed.getvalue()


def test_operator_reference_is_up_to_date():
    command = [sys.executable, os.path.join(ROOT, "docs", "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
