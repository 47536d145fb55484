"""millstream: the PaddlePaddle Fluid 1.8 interface on PyTorch. ``import millstream as paddle`` runs Fluid programs."""

from __future__ import annotations

import importlib
from typing import Any

from millstream.batch import batch
from millstream.config import wait_shortly
from millstream.version import full_version as __version__

__all__ = ["__version__", "batch", "compat", "dataset", "fluid", "load", "reader", "version"]

_LAZY = frozenset(
    {"compat", "complex", "dataset", "distributed", "fluid", "incubate", "onnx", "reader", "sysconfig", "utils"}
)


wait_shortly()


def __getattr__(name: str) -> Any:
    """Sub-packages are imported at their first use: ``fluid`` brings torch with it, and so does ``load``."""
    if name == "load":
        from millstream.inference.session import load

        return load
    if name in _LAZY:
        try:
            return importlib.import_module(f"millstream.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"millstream.{name}":
                raise
    raise AttributeError(f"module 'millstream' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
