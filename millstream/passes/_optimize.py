"""The optimised form of a Program for inference."""

from __future__ import annotations

from collections.abc import Iterable

from millstream.ir import walk
from millstream.ir.program import Program
from millstream.passes import pipelines
from millstream.passes._pass import run
from millstream.passes._work import Parameters, Work


def optimize(
    program: Program,
    feeds: Iterable[str],
    fetches: Iterable[str],
    parameters: Parameters | None = None,
    names: Iterable[str] = pipelines.INFER,
    check: bool = False,
) -> Work:
    """An optimised copy of an inference Program; `program` and its parameters stay as they are.

    Args:
        program: a pruned inference Program, with feed and fetch operators or without; sub-Blocks are optimised too.
        feeds, fetches: names of the variables that are fed and fetched; they keep their names, shapes and dtypes.
        parameters: the value (torch tensor) of a persistable variable by name, or None where there is none: a dict's
            ``get``, or ``lambda name: scope_value(name)``. Passes that fold values refuse without it. The values must not
            change as long as the result is used: they are folded into others.
        names: the passes, in order.
        check: verify the Program after each pass.

    Returns:
        A Work: ``program`` is the copy, ``values`` are persistable variables that passes made (name -> tensor), to be
        put beside the old ones where the copy runs; ``explain()`` and ``counts()`` tell what was done and why not more.
        Variables that no operator uses any more are gone from the copy: its persistable variables minus ``values`` are
        the parameters that are still needed. Running and saving it is as for any Program.

    Raises:
        InvalidProgramError: there is no pass of a name, or (with `check`) a pass left a Program that is not valid.
    """
    keep = frozenset([*feeds, *fetches])
    work = Work(walk.clone(program), keep, parameters, whole=True)
    run(work, names, check)
    return drop_unused(work)


def drop_unused(work: Work) -> Work:
    """Take Blocks and variables that nothing uses any more out of a Program that passes own."""
    walk.drop_unreachable_blocks(work.program)
    used = set(work.keep)
    for op in walk.all_ops(work.program):
        used.update(op.input_arg_names)
        used.update(op.output_arg_names)
        # operators with a sub-Block name some of its variables in attributes
        for setting in op.attrs.values():
            if isinstance(setting, str):
                used.add(setting)
            elif isinstance(setting, list):
                used.update(item for item in setting if isinstance(item, str))
    for block in work.program.blocks:
        for name in [n for n in block.vars if n not in used]:
            del block.vars[name]
    work.values = {name: value for name, value in work.values.items() if name in used}
    return work
