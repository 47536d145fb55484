"""What passes work on: a Program under change, and what is known of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ir.variable import Parameter
from millstream.ops._opdef import REGISTRY
from millstream.ops._values import VAR_DTYPE
from millstream.passes._uses import Uses

Parameters = Callable[[str], Any]  # name -> kernel value, or None where there is none


@dataclass
class Work:
    """A Program under change.

    Attributes:
        program: what passes change.
        keep: variables that are read from outside (fetches) or written from there (feeds).
        parameters: reads persistable values by name; None: they are not known, or may change.
        whole: the Program is a copy of its own, so that sub-Blocks may change too.
        fluid: the result must mean the same to PaddlePaddle.
        values: persistable variables that passes made, by name.
        done: (pass, number of changes), in order.
        refused: (pass, operator, why), of each place where a rule's pattern stood and it did nothing.
        notes: what else a pass has to say: (pass, text).
    """

    program: Program
    keep: frozenset[str] = frozenset()
    parameters: Parameters | None = None
    whole: bool = False
    fluid: bool = False
    values: dict[str, torch.Tensor] = field(default_factory=dict)
    done: list[tuple[str, int]] = field(default_factory=list)
    refused: list[tuple[str, Operator, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    _once: set[tuple[str, int]] = field(default_factory=set, repr=False)  # what `refuse` has seen
    _held: tuple[list[Operator], Uses] | None = field(default=None, repr=False)

    @property
    def block(self) -> Block:
        """The global Block."""
        return self.program.global_block()

    @property
    def blocks(self) -> list[Block]:
        """The Blocks that passes may change: all that the Program reaches when it is `whole`, else the global one."""
        found = [self.block]
        if self.whole:
            for block in found:  # grows while it is walked
                found += [sub for op in block.ops for sub in op.sub_blocks() if sub not in found]
        return found

    def uses(self, block: Block) -> Uses:
        """Who reads and writes what in `block`, with what must keep its value there."""
        if block is self.block:
            # Most passes change nothing; sub-Blocks, whose operators count as their holder's, only change in whole Programs.
            if self._held is None or self.whole or self._held[0] != block.ops:
                self._held = list(block.ops), Uses(block, self.keep)
            return self._held[1]
        return Uses(block, frozenset(n for op in self._holders(block) for n in exported(op)))

    def _holders(self, block: Block) -> list[Operator]:
        return [op for op in walk.all_ops(self.program) if block in op.sub_blocks()]

    def refuse(self, name: str, op: Operator, why: str) -> None:
        """Keep why pass `name` left `op` as it is, once."""
        if (name, id(op)) not in self._once:
            self._once.add((name, id(op)))
            self.refused.append((name, op, why))

    # ---- values ----------------------------------------------------------------------------------
    def value(self, name: str) -> torch.Tensor | None:
        """The value of a persistable variable that no operator changes; None when it is not known."""
        if name in self.values:
            return self.values[name]
        var = self.block.vars.get(name)
        if self.parameters is None or var is None or not var.persistable or var.type is not VarType.LOD_TENSOR:
            return None
        if name in self.keep or name in self.written():
            return None
        found = self.parameters(name)
        return found if isinstance(found, torch.Tensor) else None

    def written(self) -> frozenset[str]:
        """Variables that an operator of any Block writes; batch_norm in test form only passes its statistics on."""
        found: set[str] = set()
        for op in walk.all_ops(self.program):
            same = set(op.input_arg_names) if keeps_statistics(op) else set()
            found.update(n for n in op.output_arg_names if n not in same)
        return frozenset(found)

    def store(self, like: str, value: torch.Tensor) -> str:
        """The name of a new persistable variable that holds `value`; its name begins with `like`."""
        root = self.block
        number = 0
        while root._has_var_recursive(name := f"{like}.folded_{number}"):
            number += 1
        value = value.detach().contiguous()
        dims, dtype = list(value.shape) or [1], VAR_DTYPE[value.dtype]
        root.vars[name] = Parameter(root, name, dims, dtype, trainable=False, stop_gradient=True)
        self.values[name] = value.reshape(dims)
        return name

    def declare(self, block: Block, like: str, **changes: Any) -> str:
        """The name of a new variable of `block` declared as `like` is, but for `changes` (shape, dtype, lod_level)."""
        number = 0
        while block._has_var_recursive(name := f"{like}.pass_{number}"):
            number += 1
        twin = walk.copy_var(block._var_recursive(like), block)
        twin._name = name
        twin.persistable = False
        for attribute, setting in changes.items():
            setattr(twin, attribute, setting)
        block.vars[name] = twin
        return name

    # ---- reports ---------------------------------------------------------------------------------
    def explain(self) -> str:
        """What was done and what was refused, as text."""
        lines = [f"{name}: {count} changes" for name, count in self.done]
        lines += [f"{name}: {text}" for name, text in self.notes]
        return "\n".join(lines + [f"{name} refused {op.type} ({_outputs(op)}): {why}" for name, op, why in self.refused])

    def counts(self) -> dict[str, int]:
        """Changes by pass, of passes that made some; runs of one pass are added."""
        found: dict[str, int] = {}
        for name, count in self.done:
            if count:
                found[name] = found.get(name, 0) + count
        return found


def _outputs(op: Operator) -> str:
    return ", ".join(n for n in op.output_arg_names[:3] if n != EMPTY_VAR)


def exported(op: Operator) -> list[str]:
    """Variables of its sub-Block that an operator reads after the Block has run."""
    definition = REGISTRY.find(op.type)
    names = definition.extra["exports"](op) if definition is not None and "exports" in definition.extra else []
    return list(names)


def keeps_statistics(op: Operator) -> bool:
    """Whether `op` is a batch normalisation that does not change its running statistics."""
    if op.type not in ("batch_norm", "sync_batch_norm", "inplace_abn"):
        return False
    return bool(op.attr("use_global_stats") or (op.attr("is_test") and not op.attr("trainable_statistics")))


Pass = Callable[[Work], int]
