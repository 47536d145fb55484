"""``fluid.trainer_factory``: a watcher of variables, and the name of what makes Fluid's C++ trainers."""

from __future__ import annotations

import threading
from typing import Any

from millstream.fluid.executor import FetchHandler, as_numpy
from millstream.fluid.trainer_desc import TrainerDesc
from millstream.runtime.scope import Scope

__all__ = ["FetchHandler", "FetchHandlerMonitor", "TrainerFactory"]


class TrainerFactory(TrainerDesc):
    """Raises NotSupportedError, which names what to use."""


class FetchHandlerMonitor:
    """Calls a FetchHandler with the values that its variables have in `scope`, every `period_secs` seconds.

    What is not in the scope comes as None.
    """

    def __init__(self, scope: Scope, handler: FetchHandler) -> None:
        self.scope = scope
        self.fetch_instance = handler
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start watching."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="millstream-fetch-monitor")
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(self.fetch_instance.period_secs):
            self.fetch_instance.handler({key: self._value(var.name) for key, var in self.fetch_instance.var_dict.items()})

    def _value(self, name: str) -> Any:
        found = self.scope.find_var(name)
        return None if found is None or found.obj is None else as_numpy(found.get_tensor())

    def stop(self) -> None:
        """Stop watching; waits for a call that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
