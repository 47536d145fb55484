"""The house rules that a machine can check: who may import whom, sizes, cycles, stars."""

import ast
import functools
import os
from collections import defaultdict

import pytest

ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "millstream")
# What each room may import besides itself (docs/design.md).
FOUNDATION = {"errors", "config"}
BACKEND = FOUNDATION | {"files", "ir", "kernels", "ops"}
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "ir": FOUNDATION,
    "files": FOUNDATION | {"ir"},
    "kernels": FOUNDATION | {"ir"},
    "ops": FOUNDATION | {"files", "ir", "kernels"},
    "autodiff": BACKEND,
    "passes": BACKEND | {"autodiff"},  # a pass that rewrites a loop makes the gradients of what takes its place
    "runtime": BACKEND | {"passes"},
    "reader": FOUNDATION,
    "batch": FOUNDATION,
    "utils": FOUNDATION,
    "dataset": FOUNDATION | {"files", "reader"},
    "inference": BACKEND | {"passes", "runtime", "onnx", "version"},
    "onnx": BACKEND | {"passes", "runtime"},
}
# The front builds Programs and never imports the back; these files of fluid/ are where the two meet.
FRONT = BACKEND | {"autodiff", "passes", "reader", "batch", "version"}
MEETING_PLACES = (
    "fluid/__init__.py",
    "fluid/compiler.py",  # names of the runtime's
    "fluid/core.py",
    "fluid/core_facts.py",
    "fluid/data_feeder.py",  # makes the runtime's tensors out of samples
    "fluid/executor.py",  # names of the runtime's
    "fluid/install_check.py",  # builds and runs
    "fluid/lod_tensor.py",  # names of the runtime's tensors
    "fluid/parallel_executor.py",  # names of the runtime's
    "fluid/trainer_factory.py",  # watches the runtime's scope
    "fluid/profiler.py",  # switches the runtime's recorder
    "fluid/layers/reader_io.py",  # a reader is operators and the queue they read
)
MEETING_ROOMS = ("fluid/dygraph", "fluid/inference", "fluid/reader/", "fluid/dataset/")  # loaders fill the runtime's queues
OP_NAME_ROOMS = ("passes", "onnx", "distributed", "inference")


def modules():
    for folder, _, names in os.walk(ROOT):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, ROOT).replace(os.sep, "/"), path


MODULES = dict(modules())


@functools.cache
def tree_of(path):
    with open(path, encoding="utf-8") as source:
        return ast.parse(source.read(), path)


@functools.cache
def imports(name):
    """(module, names, whether it runs at import time) of every import of our own package; type-only ones are left out."""
    found = []
    package = ["millstream", *name.split("/")[:-1]]

    def visit(node, at_import):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.ImportFrom):
                above = package[: len(package) - child.level + 1] if child.level else []
                module = ".".join([*above, *([child.module] if child.module else [])])
                if module.split(".")[0] == "millstream":
                    found.append((module, [a.name for a in child.names], at_import))
            elif isinstance(child, ast.Import):
                found.extend((a.name, [], at_import) for a in child.names if a.name.startswith("millstream"))
            visit(child, at_import and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))

    visit(tree_of(MODULES[name]), True)
    return found


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def rooms_above(name):
    """Imports of rooms that are not below that of the module `name`."""
    mine = name.split("/")[0].removesuffix(".py")
    allowed = ALLOWED.get(mine)
    if mine == "fluid":
        allowed = None if name in MEETING_PLACES or name.startswith(MEETING_ROOMS) else FRONT | {"fluid"}
    wrong = []
    for module, names, _ in imports(name):
        rooms = {room(module)} if room(module) else set(names)
        wrong += [f"{mine} must not import {r}" for r in rooms if allowed is not None and r != mine and r not in allowed]
    return wrong


def too_large(name):
    """A file of more than 600 lines, functions of more than 80 without their docstrings."""
    with open(MODULES[name], encoding="utf-8") as source:
        lines = source.read().count("\n")
    found = [f"{lines} lines; 600 at most"] if lines > 600 else []
    for node in ast.walk(tree_of(MODULES[name])):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            if (node.end_lineno or 0) - start > 80:
                found.append(f"{node.name}: {node.end_lineno - start} lines; 80 at most")
    return found


def stars_and_operators_by_name(name):
    wrong = []
    for node in ast.walk(tree_of(MODULES[name])):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            wrong.append(f"line {node.lineno}: star import")
        if (
            isinstance(node, ast.Compare)
            and isinstance(node.left, ast.Attribute)
            and node.left.attr == "type"
            and isinstance(node.left.value, ast.Name)
            and node.left.value.id in ("op", "operator")
            and any(isinstance(c, ast.Constant) and isinstance(c.value, str) for c in node.comparators)
            and not name.startswith(OP_NAME_ROOMS)
        ):
            wrong.append(f"line {node.lineno}: an operator by name; its declaration should say it")
    return wrong


@pytest.mark.parametrize("name", sorted(MODULES))
def test_house_rules(name):
    assert not [*rooms_above(name), *too_large(name), *stars_and_operators_by_name(name)]


def test_no_import_cycles():
    graph = defaultdict(set)
    dotted = {("millstream/" + n).removesuffix(".py").removesuffix("/__init__").replace("/", "."): n for n in MODULES}
    for module, name in dotted.items():
        for target, names, at_import in imports(name):
            if not at_import:
                continue
            for candidate in [target, *(f"{target}.{n}" for n in names)]:
                if candidate in dotted and candidate != module:
                    graph[module].add(candidate)
    packages = {m for m, n in dotted.items() if n.endswith("__init__.py")}
    state, cycles = {}, []

    def visit(node, path):
        state[node] = 1
        for target in graph[node]:
            # `from package import module` names the package too: only its own imports count.
            if target in packages and any(t.startswith(target + ".") for t in graph[node]):
                continue
            if state.get(target) == 1:
                cycles.append(" -> ".join([*path[path.index(target) :], target]) if target in path else target)
            elif target not in state:
                visit(target, [*path, target])
        state[node] = 2

    for node in sorted(graph):
        if node not in state:
            visit(node, [node])
    assert not cycles, cycles


def test_no_nondescript_names():
    bad = {"utils.py", "util.py", "helper.py", "helpers.py", "base.py"}
    fluid = {"complex/helper.py"}  # the public name of 1.8.5
    assert not [n for n in MODULES if os.path.basename(n) in bad and n not in fluid]


# Files are never unpickled: whoever made one could run anything here. These modules unpickle other bytes:
UNPICKLING = {
    "fluid/dataloader/wire.py": "messages between this process and children that it forked, over its own socket pair",
    "fluid/dataloader/workers.py": "an exception pickled on the same line, to see whether it survives the trip",
    "reader/_processes.py": "an exception pickled on the same line, to see whether it survives the trip",
}
PICKLERS = {"pickle", "cPickle", "_pickle", "ForkingPickler", "cloudpickle", "dill", "marshal", "joblib", "shelve"}


def unpickles(node):
    """Whether a syntax node names something that turns a pickle into objects."""
    if isinstance(node, ast.Attribute):
        owner = ast.unparse(node.value).split(".")[-1]
        return owner in PICKLERS and node.attr in ("load", "loads", "Unpickler", "open")
    if isinstance(node, ast.ImportFrom):
        return node.module in PICKLERS and any(a.name in ("load", "loads", "Unpickler") for a in node.names)
    if not isinstance(node, ast.Call):
        return False
    options = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if ast.unparse(node.func) == "torch.load":
        return options.get("weights_only") != "True"
    return options.get("allow_pickle", "False") != "False"


def test_no_file_is_unpickled():
    found = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.walk(tree_of(path)):
            if unpickles(node):
                found[name].append(node.lineno)
    assert not {n: lines for n, lines in found.items() if n not in UNPICKLING}
    assert not UNPICKLING.keys() - found.keys(), "these no longer unpickle anything"
