"""``fluid.transpiler.collective``."""

from __future__ import annotations

from millstream.errors import NotSupportedError

__all__ = ["GradAllReduce", "LocalSGD"]


class Collective:
    """Base of what would put sums over trainers into a Program. Raises NotSupportedError when it is made."""

    def __init__(self, nrings: int) -> None:
        raise NotSupportedError(
            f"{type(self).__name__}: training in several processes is not in millstream yet (nrings={nrings}); in one "
            "process use fluid.CompiledProgram(program).with_data_parallel(loss_name=..., places=fluid.cpu_places(n))"
        )


class GradAllReduce(Collective):
    """Would sum gradients over trainers. Raises NotSupportedError when it is made."""

    def __init__(self, nrings: int = 2) -> None:
        super().__init__(nrings)


class LocalSGD(Collective):
    """Would average parameters over trainers. Raises NotSupportedError when it is made."""

    def __init__(self, nrings: int = 2) -> None:
        super().__init__(nrings)
