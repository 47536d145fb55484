"""``fluid.communicator``: the name of the parameter server's communicator."""

from __future__ import annotations

from typing import Any

from millstream.errors import NotSupportedError

__all__ = ["Communicator"]


class Communicator:
    """Raises NotSupportedError: there are no parameter servers here."""

    def __init__(self, program: Any, mode: Any, kwargs: Any = None, envs: Any = None) -> None:
        raise NotSupportedError(
            "Communicator sends gradients to parameter servers, which are not here: train in one process, on several cores "
            "with CompiledProgram(...).with_data_parallel(places=fluid.cpu_places(n))"
        )
