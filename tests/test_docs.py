"""README and pages: every Python block runs, in order, in one namespace a page.

The reference: every public name has an example, every example runs and prints what its page says.
"""

import contextlib
import glob
import importlib
import inspect
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


MODULES = [
    "fluid", "fluid.backward", "fluid.clip", "fluid.contrib", "fluid.data_feeder", "fluid.dataset", "fluid.debugger",
    "fluid.default_scope_funcs", "fluid.dygraph", "fluid.evaluator", "fluid.initializer", "fluid.io", "fluid.layers",
    "fluid.metrics", "fluid.nets", "fluid.optimizer", "fluid.profiler", "fluid.regularizer", "fluid.transpiler",
    "fluid.unique_name", "fluid.layers.distributions", "fluid.incubate.data_generator", "compat", "reader", "dataset.cifar",
    "dataset.conll05", "dataset.flowers", "dataset.image", "dataset.imdb", "dataset.imikolov", "dataset.mnist",
    "dataset.movielens", "dataset.mq2007", "dataset.sentiment", "dataset.uci_housing", "dataset.voc2012", "dataset.wmt14",
    "dataset.wmt16", "version",
]  # fmt: skip
# what has no example -> why
WITHOUT = {
    r"DistributeTranspiler$|transpiler\.(collective|geo)": "raise an error that names what to use instead",
    r"CUDAPinnedPlace$|cuda_pinned_places$|PipelineOptimizer$": "need CUDA",
    r"dataset\.\w+\.(fetch|convert|is_img|unittest|fluid_model|predict_reader|download_data_if_not_yet)$": "download; tests",
    r"dataset\.\w+\.(reader_creator|corpus_reader|load_\w+|sort_files|feature_range|default_mapper)$": "parts of train()",
    r"dataset\.mq2007\.(query_filter|gen_plain_txt)$": "parts of train()",
    r"dataset\.image\.(batch_images_from_tar|decode)$": "of whole archives, and a part of load_image",
    r"monkey_patch_reader_methods$": "done at import",
}


def recorded_names():
    with open(os.path.join(ROOT, "tests", "fluid", "api_1_8_5.tsv"), encoding="utf-8") as source:
        rows = [line.rstrip("\n").split("\t") for line in source.readlines()[1:]]
    skipped = ("paddle.fluid.framework.Ir", "paddle.fluid.core.Graph.")  # rows beyond what programs use
    return [n for n, kind, _ in rows if kind in ("function", "class") and not n.startswith(skipped)]


def public_names():
    """Recorded names, and those of our own modules' public functions and classes."""
    names = recorded_names()
    for module in MODULES:
        found = importlib.import_module(f"millstream.{module}")
        for name in getattr(found, "__all__", None) or [n for n in vars(found) if not n.startswith("_")]:
            value = getattr(found, name)
            ours = str(getattr(value, "__module__", None)).startswith("millstream")
            if ours and (inspect.isclass(value) or inspect.isfunction(value)):
                names.append(f"paddle.{module}.{name}")
    return names


def test_every_public_name_has_an_example():
    shown = {name for page in FOUND for example in page.examples for name in example.names}
    objects = {id(found): found for found in map(reference.find, shown)}
    missing = []
    for name in public_names():
        short = name.removeprefix("paddle.fluid.") if name.startswith("paddle.fluid.") else name
        found = reference.find(short if "." in short else f"fluid.{short}")
        excused = OUT_OF_SCOPE.search(name) or any(re.search(pattern, name) for pattern in WITHOUT)
        if not excused and id(found) not in objects:
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
