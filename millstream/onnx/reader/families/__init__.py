"""Translators of nodes: importing this package registers them all."""

from __future__ import annotations

import importlib
import pkgutil

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__, __name__ + ".")):
    importlib.import_module(_module)
