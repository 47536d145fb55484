"""How passes are found and how they run.

A pass is a function ``f(work) -> int`` that changes ``work.program`` and returns how many changes it made, or a
:class:`Rule`, which replaces operators that stand as a pattern says. Passes replace Operators and never edit them: the
Program may share them with the one the user holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module, metadata

from millstream.errors import InvalidProgramError
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.verify import verify
from millstream.passes._work import Pass, Work

ENTRY_POINTS = "millstream.passes"
_FOLDERS = ("", ".loops", ".clean", ".convolution", ".dense", ".recurrent", ".attention", ".sequence", ".training",
            ".quantized")  # fmt: skip


# ---- registry ----------------------------------------------------------------------------------------
_PASSES: dict[str, Pass] = {}


def register(name: str, what: Pass) -> Pass:
    """Make a pass known by `name`; ValueError when there is one already."""
    if name in _PASSES:
        raise ValueError(f"pass {name!r} is registered twice")
    _PASSES[name] = what
    return what


def program_pass(name: str) -> Callable[[Pass], Pass]:
    """Register the decorated function."""
    return lambda function: register(name, function)


def find(name: str) -> Pass:
    """The pass `name`: registered, a module of this package, or an entry point of the group `millstream.passes`.

    Raises InvalidProgramError when there is none.
    """
    if name not in _PASSES and not _import_pass(name):
        for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
            made = point.load()
            if name not in _PASSES:
                register(name, made)
    if name not in _PASSES:
        raise InvalidProgramError(f"there is no pass {name!r}; known are {', '.join(sorted(_PASSES)) or 'none'}")
    return _PASSES[name]


def _import_pass(name: str) -> bool:
    """Import the module of this package that registers pass `name`; False when there is none."""
    if not name.isidentifier() or name.startswith("_"):
        return False
    for folder in _FOLDERS:
        module = f"{__package__}{folder}.{name}"
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        else:
            return True
    return False


# ---- running -----------------------------------------------------------------------------------------
def work_on(program: Program, ops: list[Operator] | None = None, keep: Iterable[str] = ()) -> Work:
    """A Work over `program` that leaves it as it is.

    The global Block is a new one with `ops` (the Program's own when None); sub-Blocks, Operators and Variables are shared.
    """
    root = program.global_block()
    twin = Program()
    twin.global_block().vars = dict(root.vars)
    twin.global_block().ops = list(root.ops if ops is None else ops)
    twin.blocks.extend(program.blocks[1:])
    twin._seed = program._seed
    return Work(twin, frozenset(keep))


def run(work: Work, names: Iterable[str], check: bool = False) -> Work:
    """Run passes in order; with `check`, verify the Program before the first and after each.

    Raises InvalidProgramError: a pass left a Program that is not valid. Another exception of a pass gets a note. Both
    name the passes that had run.
    """
    if check:
        verify(work.program, work.keep, after=" (before the first pass)")
    for name in names:
        before = ", ".join(done for done, _ in work.done) or "none"
        try:
            work.done.append((name, find(name)(work)))
        except Exception as error:
            verify(work.program, work.keep)  # an operator that lacks an input, say, is the better explanation
            error.add_note(f"in pass {name!r}; passes that had run: {before}")
            raise
        if check:
            verify(work.program, work.keep, after=f" after pass {name!r} (passes that had run: {before})")
    return work
