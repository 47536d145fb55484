"""README and pages: every Python block runs, in order, in one namespace a page.

The reference: every public name has an example, every example runs and prints what its page says.
"""

import contextlib
import glob
import io
import os
import re
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


sys.path.insert(0, os.path.join(ROOT, "docs"))
import generate  # noqa: E402
import pages as reference  # noqa: E402

FOUND = reference.pages()
# of several machines, or of a room that is not built yet
OUT_OF_SCOPE = re.compile(r"DistributeTranspiler|incubate\.fleet|contrib\.slim|Compressor")


@pytest.mark.parametrize("name", [page.name for page in FOUND] + ["operators", "arguments", "index"])
@pytest.mark.filterwarnings("ignore")
def test_reference_is_up_to_date(name):
    """Runs all examples of the page. When it fails because of a change that is meant: `make docs`."""
    assert generate.outdated([name]) == []


def public_names():
    with open(os.path.join(ROOT, "tests", "fluid", "api_1_8_5.tsv"), encoding="utf-8") as source:
        rows = [line.rstrip("\n").split("\t") for line in source.readlines()[1:]]
    skipped = ("paddle.fluid.framework.Ir", "paddle.fluid.core.Graph.")  # rows beyond what programs use
    return [n for n, kind, _ in rows if kind in ("function", "class") and not n.startswith(skipped)]


def test_every_public_name_has_an_example():
    shown = {name for page in FOUND for example in page.examples for name in example.names}
    objects = [reference.find(name) for name in shown]
    missing = []
    for name in public_names():
        short = name.removeprefix("paddle.fluid.")
        found = reference.find(short if "." in short else f"fluid.{short}")
        if not OUT_OF_SCOPE.search(name) and not any(found is o for o in objects):
            missing.append(name)
    assert missing == [], "write examples in docs/examples"


def test_examples_are_of_their_names():
    """Each example mentions the names it stands for."""
    for page in FOUND:
        for example in page.examples:
            for name in example.names:
                text = example.code + page.setup + reference.PREAMBLE
                assert name.split(".")[-1] in text or aliased(name, text), name


def aliased(name, code):
    """Whether the code uses the same object by another name (SGD for SGDOptimizer)."""
    owner = reference.find(name.rpartition(".")[0] or "fluid")
    found = reference.find(name)
    return any(value is found and other in code for other, value in vars(owner).items())
