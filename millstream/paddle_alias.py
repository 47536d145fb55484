"""install(): from then on ``import paddle`` and ``from paddle.fluid.x import y`` give millstream's modules.

A finder at the front of ``sys.meta_path`` resolves ``paddle.<name>`` to the very module ``millstream.<name>``, so that
both names are one object. Only Fluid's own rooms are visible under ``paddle``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from millstream.errors import NotSupportedError

ALIAS, REAL = "paddle", "millstream"
ROOMS = frozenset(
    {
        "batch", "compat", "complex", "dataset", "distributed", "fluid", "incubate", "reader", "sysconfig", "utils",
        "version",
    }
)


class _Finder(MetaPathFinder, Loader):
    """Finder and loader of ``paddle`` and all below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, rest = fullname.partition(".")
        if root != ALIAS:
            return None
        if rest and rest.split(".", 1)[0] not in ROOMS:
            raise _missing(fullname)
        real = f"{REAL}.{rest}" if rest else REAL
        found = importlib.util.find_spec(real)
        if found is None:
            # not left to the other finders: they would load a second copy of the file
            raise _missing(fullname)
        spec = ModuleSpec(fullname, self, origin=found.origin, is_package=found.submodule_search_locations is not None)
        spec.loader_state = real
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(spec.loader_state)
        # the import system is about to overwrite __spec__ of the module it shares with `millstream`
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.loader is self:
            module.__spec__ = spec.loader_state


_finder = _Finder()


def installed() -> bool:
    """Whether ``paddle`` means millstream."""
    return _finder in sys.meta_path


def install() -> None:
    """Make ``import paddle`` mean millstream in this process; a second call changes nothing.

    Raises NotSupportedError: another ``paddle`` is already imported.
    """
    package = importlib.import_module(REAL)
    other = sys.modules.get(ALIAS)
    if other is not None and other is not package:
        raise NotSupportedError(
            f"another paddle is already imported (from {getattr(other, '__file__', 'an unknown place')}); "
            "call millstream.paddle_alias.install() before the first `import paddle`, or use `millstream run script.py`"
        )
    if not installed():
        sys.meta_path.insert(0, _finder)
    sys.modules[ALIAS] = package
    # registered now, so that a later `import paddle.batch` does not put the module over the function paddle.batch
    sys.modules[f"{ALIAS}.batch"] = importlib.import_module(f"{REAL}.batch")


def uninstall() -> None:
    """Undo :func:`install`; modules already imported by a program stay with it."""
    if not installed():
        return
    sys.meta_path.remove(_finder)
    for name in [n for n in sys.modules if n == ALIAS or n.startswith(f"{ALIAS}.")]:
        del sys.modules[name]


def _missing(fullname: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"No module named {fullname!r} (paddle is millstream here, and this part is not in it)", name=fullname
    )
