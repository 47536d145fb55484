"""No argument is silently ignored: what no code reads is on the documented list of docs/arguments.py."""

import ast
import importlib.util
import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLUID = os.path.join(ROOT, "millstream", "fluid")


def listed():
    spec = importlib.util.spec_from_file_location("docs_arguments", os.path.join(ROOT, "docs", "arguments.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {(function, argument) for function, arguments, _ in module.MEANINGLESS for argument in arguments}


def functions(body, prefix):
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield f"{prefix}.{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}.{node.name}")


def refuses(node):
    """Whether all that a function does is to raise: an abstract method, or a form that is not supported."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    last = body[-1] if body else None
    is_call = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
    no_return = isinstance(node.returns, ast.Name) and node.returns.id == "NoReturn"
    return len(body) == 1 and (isinstance(last, (ast.Raise, ast.Pass)) or (is_call and no_return))


def unread():
    for folder, _, names in os.walk(FLUID):
        for name in sorted(names):
            if not name.endswith(".py"):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as source:
                tree = ast.parse(source.read())
            module = os.path.relpath(path, FLUID)[:-3].replace(os.sep, ".").removesuffix(".__init__")
            for function, node in functions(tree.body, module):
                inner = function.removeprefix(module + ".").split(".")
                if refuses(node) or any(p.startswith("_") and p not in ("__init__", "__call__") for p in inner):
                    continue
                given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                read = {n.id for part in node.body for n in ast.walk(part) if isinstance(n, ast.Name)}
                yield from ((function, a) for a in given if a not in read and a not in ("self", "cls"))


def test_every_argument_is_read_or_listed():
    found, known = set(unread()), listed()
    assert found - known == set(), "read these arguments, refuse them, or list them in docs/arguments.py"
    assert known - found == set(), "these are read (or gone): take them off the list"
