"""``memory_optimize`` and ``release_memory``: accepted, without effect.

A Plan frees every value after its last use and keeps parameters in place, so there is nothing to rewrite.
"""

from __future__ import annotations

from typing import Any

from millstream.ir.program import Program

__all__ = ["memory_optimize", "release_memory"]


def _check(function: str, program: Any) -> None:
    if not isinstance(program, Program):
        raise TypeError(f"{function}: input_program must be a Program, received {type(program).__name__}")


def memory_optimize(
    input_program: Program, skip_opt_set: Any = None, print_log: bool = False, level: int = 0, skip_grads: bool = True
) -> None:
    """Accepted, without effect: memory is freed while the Program runs.

    Raises ValueError: `level` is not 0 or 1, which never had a meaning.
    """
    _check("memory_optimize", input_program)
    if level not in (0, 1):
        raise ValueError(f"only support opt_level 0 or 1, received {level!r}")


def release_memory(input_program: Program, skip_opt_set: Any = None) -> None:
    """Accepted, without effect: memory is freed while the Program runs."""
    _check("release_memory", input_program)
