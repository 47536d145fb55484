"""``fluid.trainer_desc``: names of Fluid's C++ trainers. ``Executor.train_from_dataset`` trains here, on Python threads."""

from __future__ import annotations

from typing import Any

from millstream.errors import NotSupportedError

__all__ = ["DistMultiTrainer", "MultiTrainer", "PipelineTrainer", "TrainerDesc"]


class TrainerDesc:
    """Raises NotSupportedError, which names what to use."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotSupportedError(
            f"{type(self).__name__} describes a trainer of Fluid's C++ runtime, which is not here: "
            "Executor.train_from_dataset(program, dataset, thread=n) trains on n threads"
        )


class MultiTrainer(TrainerDesc):
    """Raises NotSupportedError, which names what to use."""


class DistMultiTrainer(TrainerDesc):
    """Raises NotSupportedError, which names what to use."""


class PipelineTrainer(TrainerDesc):
    """Raises NotSupportedError, which names what to use."""
