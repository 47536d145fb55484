"""Variables that several operators write (in-place reshapes, activations) -> one variable for each of the values.

Rules refuse places where a variable is written twice; the last value keeps the name.
"""

from __future__ import annotations

from millstream.ir import library
from millstream.ir.block import Block
from millstream.ops._opdef import REGISTRY
from millstream.passes._evaluate import renamed
from millstream.passes._pass import program_pass
from millstream.passes._uses import Uses
from millstream.passes._work import Work


@program_pass("split_versions")
def split_versions(work: Work) -> int:
    """Counts new variables."""
    if not work.whole:
        return 0
    return sum(_split(work, block) for block in work.blocks)


def _split(work: Work, block: Block) -> int:
    uses = work.uses(block)
    names = {n for n, writers in uses.writers.items() if len(writers) > 1 and _may(uses, n)}
    if not names:
        return 0
    now: dict[str, str] = {}
    made = 0
    for at, op in enumerate(block.ops):
        reads = {n: now[n] for n in op.input_arg_names if n in now}
        writes = {}
        for name in op.output_arg_names:
            if name in names:
                last = uses.writers[name][-1] == at
                writes[name] = name if last else work.declare(block, name)
                made += not last
        now.update(writes)
        if reads or writes:
            block.ops[at] = new = renamed(op, reads, writes)
            installed = library.installed()
            if installed is not None and any(a != b for a, b in writes.items()):
                installed.check_and_infer(new)
    work.program._touch()
    return made


def _may(uses: Uses, name: str) -> bool:
    """Whether all values of `name` are made and used by operators of this Block alone."""
    writers, readers = uses.writers[name], uses.readers.get(name, [])
    if any(uses.ops[p].sub_blocks() or uses.ops[p].type in ("feed", "fetch") for p in [*writers, *readers]):
        return False
    if any(r <= writers[0] for r in readers):  # its first value comes from outside
        return False
    var = uses.block.vars.get(name)
    if var is None or var.persistable or var.is_data or (name in uses.keep and uses.block.parent_idx >= 0):
        return False
    for p in writers:
        definition = REGISTRY.find(uses.ops[p].type)
        if definition is None or any(s.inout and name in uses.ops[p].outputs.get(s.name, ()) for s in definition.outputs):
            return False
    return True
