"""What an engine is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Compiled = Callable[[list[Array]], list[Array]]
"""A sub-model that an engine has prepared: contiguous inputs to outputs, in the order they were named. Several threads
may call it at once. What it returns may be overwritten by the same thread's next call."""


@dataclass(frozen=True)
class Options:
    """How an engine prepares a sub-model.

    Attributes:
        threads: for one call.
        precision: "float32", or "bfloat16" where the engine computes in it.
        settings: of the engine's own (provider options).
        bounded: memory is given back after every call, and no shape gets a compiled form of its own.
    """

    threads: int = 1
    precision: str = "float32"
    settings: Mapping[str, str] = field(default_factory=dict)
    bounded: bool = False
