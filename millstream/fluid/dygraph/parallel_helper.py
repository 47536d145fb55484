"""``fluid.dygraph.parallel_helper``: names that launch scripts reach for; with one process they do nothing."""

from __future__ import annotations

from typing import Any


class _Context:
    strategy: Any = None


def _is_data_parallel_mode() -> bool:
    """Whether several processes train together."""
    return _Context.strategy is not None and _Context.strategy.nranks > 1


def _set_parallel_ctx(nccl_parallel_context: Any) -> None:
    """Remember the strategy."""
    _Context.strategy = nccl_parallel_context


def _init_parallel_ctx() -> None:
    """Connect to the other processes: there are none."""


def _broadcast_parameters(parameters: Any) -> None:
    """Give all processes the parameters of the first: there is only one."""


def _is_parallel_ctx_initialized() -> bool:
    """Whether a strategy is set."""
    return _Context.strategy is not None
