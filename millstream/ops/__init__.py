"""The operator library: importing it declares every operator and installs the library for the IR."""

from __future__ import annotations

import importlib
import pkgutil

from millstream.ops import _grad, _infer  # noqa: F401  (they install themselves)
from millstream.ops._opdef import REGISTRY, OpDef, op
from millstream.ops._values import Ragged, SelectedRows, Spec, TensorArray

for _module in sorted(m.name for m in pkgutil.walk_packages(__path__, __name__ + ".")):
    if not _module.rsplit(".", 1)[1].startswith("_"):
        importlib.import_module(_module)

__all__ = ["REGISTRY", "OpDef", "Ragged", "SelectedRows", "Spec", "TensorArray", "op"]
