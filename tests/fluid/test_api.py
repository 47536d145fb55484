"""Every name of Fluid 1.8.5 that public programs use is here, with its parameters in order and its defaults."""

import ast
import importlib
import inspect
import os
import re

import pytest

from millstream.fluid import framework

HERE = os.path.dirname(os.path.abspath(__file__))

# name -> why its signature differs
OTHERWISE = {
    "paddle.fluid.Variable.backward": "eager variables have the signature; a Program's only the explanation",
    "paddle.fluid.Variable": "made by a Block, which names it: (block, name, ...)",
    "paddle.fluid.framework.Parameter": "made by a Block, which names it: (block, name, ...)",
}


def rows():
    with open(os.path.join(HERE, "api_1_8_5.tsv")) as source:
        return [line.rstrip("\n").split("\t") for line in source.readlines()[1:]]


def find(name):
    """The object `name` (paddle.… is millstream.…), or AttributeError."""
    parts = name.replace("paddle", "millstream", 1).split(".")
    found, path = importlib.import_module(parts[0]), parts[0]
    for part in parts[1:]:
        path += "." + part
        if part == "py_reader()":  # what the function returns
            with framework.program_guard(framework.Program(), framework.Program()):
                found = found.py_reader(2, [[-1, 4]], ["float32"])
            continue
        if not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError:
                raise AttributeError(f"no {path}") from None
        found = getattr(found, part)
    return found


ANY = object()  # a default that cannot be written down: an object's address


def wanted(signature):
    """[(parameter, default or inspect.Parameter.empty)] of a recorded signature; None when it cannot be read."""
    text = re.sub(r"<[^<>]*>", "...", signature)
    if not text.startswith("("):
        return None  # of a compiled class
    try:
        arguments = ast.parse(f"def f{text}: pass").body[0].args
    except SyntaxError:
        return None
    found = [(a.arg, inspect.Parameter.empty) for a in arguments.args]
    for i, default in enumerate(reversed(arguments.defaults)):
        found[-1 - i] = (found[-1 - i][0], literal(default))
    if arguments.vararg:
        found.append(("*", None))
    if arguments.kwarg:
        found.append(("**", None))
    return found


def literal(node):
    if isinstance(node, ast.Constant) and node.value is ...:
        return ANY
    if isinstance(node, ast.Attribute):
        return node.attr
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ANY


def same_default(want, got):
    if want is ANY:
        return True
    if isinstance(want, (list, tuple)) and isinstance(got, (list, tuple)):
        return list(want) == list(got)
    if isinstance(want, str) and not isinstance(got, str):
        return getattr(got, "name", None) == want
    if want is inspect.Parameter.empty:
        return True  # what 1.8.5 demands may have a default here
    if got is inspect.Parameter.empty:
        return False
    return want == got


def difference(want, got):
    """What of `want` is not in the signature `got`; further parameters with defaults may follow."""
    if {name for name, _ in want} <= {"self", "*", "**"}:
        return None  # 1.8.5 passes everything on and does not say what it takes
    parameters = list(got.parameters.values())
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    kinds = {p.kind for p in parameters}
    named = [(name, default) for name, default in want if not name.startswith("*")]
    for i, (name, default) in enumerate(named):
        if i >= len(taken) or taken[i].name != name:
            return f"parameter {i} should be {name!r}, found {taken[i].name if i < len(taken) else None}"
        if not same_default(default, taken[i].default):
            return f"default of {name!r} should be {default!r}, found {taken[i].default!r}"
    for extra in taken[len(named) :]:
        if extra.default is inspect.Parameter.empty:
            return f"{extra.name!r} is demanded as well"
    if ("**", None) in want and inspect.Parameter.VAR_KEYWORD not in kinds:
        return "no **kwargs"
    if ("*", None) in want and inspect.Parameter.VAR_POSITIONAL not in kinds:
        return "no *args"
    return None


@pytest.mark.parametrize(("name", "kind", "signature"), rows(), ids=[row[0] for row in rows()])
def test_name(name, kind, signature):
    found = find(name)
    want = wanted(signature)
    if want is None or name in OTHERWISE or kind in ("property", "module_attribute", "private_function"):
        return
    if kind == "class" and isinstance(inspect.getattr_static(found, "__init__"), type(object.__init__)):
        got = inspect.Signature()
    else:
        got = inspect.signature(found)
    problem = difference(want, got)
    assert problem is None, f"{name}{signature}: {problem}; here {got}"
