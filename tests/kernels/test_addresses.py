"""Arrays of compiled kernels live as long as their addresses are used.

numba frees an array after its last use by name; an address does not keep it.
"""

import ast
from pathlib import Path

import pytest

import millstream.kernels

FILES = sorted(Path(millstream.kernels.__file__).parent.glob("*.py"))
MADE = ("empty", "zeros", "ones", "full", "empty_like", "zeros_like")


def _made(function):
    """Names that a function binds to arrays of its own."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            pairs = (
                zip(target.elts, node.value.elts)
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                else ()
            )
            for name, value in (*pairs, (target, node.value)):
                call = value.func if isinstance(value, ast.Call) else None
                if isinstance(name, ast.Name) and isinstance(call, ast.Attribute) and call.attr in MADE:
                    yield name.id


def freed_early(source):
    """(function, array) where an array's address is taken, and the array not used by name in or behind the last loop."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or not any("njit" in ast.unparse(d) for d in function.decorator_list):
            continue
        loops = [n for n in ast.walk(function) if isinstance(n, ast.For | ast.While)]
        last = max((n.end_lineno for n in loops), default=0)
        for array in set(_made(function)):
            uses = [
                n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == array and isinstance(n.ctx, ast.Load)
            ]
            within = [
                max([n.end_lineno for n in loops if n.lineno <= u.lineno <= n.end_lineno], default=u.lineno) for u in uses
            ]
            address = any(
                isinstance(n, ast.Attribute) and n.attr == "ctypes" and isinstance(n.value, ast.Name) and n.value.id == array
                for n in ast.walk(function)
            )  # fmt: skip
            if address and max(within) < last:
                yield function.name, array


@pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])
def test_arrays_outlive_their_addresses(path):
    assert list(freed_early(path.read_text())) == []


def test_one_that_does_not_is_found():
    body = ("room = np.empty(n)", "at = room.ctypes.data", "for i in range(n):", "    copy(p, at)")
    source = "\n    ".join(["@njit\ndef f(p, n):", *body]) + "\n"
    assert list(freed_early(source)) == [("f", "room")]
    assert list(freed_early(source + "    room[0] = 0\n")) == []
