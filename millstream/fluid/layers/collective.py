"""``fluid.layers.collective``: sums over processes. One process's sum is its own value."""

from __future__ import annotations

from typing import Any

from millstream.config import cluster
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import check_choice, check_variable, refuse

__all__: list[str] = []


def _allreduce(x: Any, out: Any = None, reduce_type: str = "sum", sync_mode: bool = False) -> Any:
    """The sum, product, maximum or minimum of `x` over all processes; with one process `x` itself, copied.

    Args:
        out: the Variable to write; a new one by default.
        reduce_type: "sum", "prod", "max" or "min".
        sync_mode: whether to wait: everything here waits.

    Raises InvalidProgramError: there are several processes (PADDLE_TRAINERS_NUM).
    """
    layer = "allreduce"
    check_variable(x, "x", layer)
    check_choice(reduce_type, "reduce_type", ("sum", "prod", "max", "min"), layer)
    trainers = cluster().trainers_num
    if trainers > 1:
        refuse(
            layer,
            f"PADDLE_TRAINERS_NUM is {trainers}, and values are not exchanged between processes here; with several places "
            "of one process use CompiledProgram.with_data_parallel",
        )
    return append(layer, "assign", {"X": [x]}, dtype=x.dtype, out=out)
