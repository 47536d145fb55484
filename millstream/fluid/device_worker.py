"""``fluid.device_worker``: names of the threads of Fluid's C++ trainers; see ``fluid.trainer_desc``."""

from __future__ import annotations

from millstream.fluid.trainer_desc import TrainerDesc

__all__ = ["DeviceWorker", "DownpourSGD", "DownpourSGDOPT", "Hogwild", "Section"]


class DeviceWorker(TrainerDesc):
    """Raises NotSupportedError, which names what to use."""


class Hogwild(DeviceWorker):
    """Raises NotSupportedError, which names what to use."""


class DownpourSGD(DeviceWorker):
    """Raises NotSupportedError, which names what to use."""


class DownpourSGDOPT(DeviceWorker):
    """Raises NotSupportedError, which names what to use."""


class Section(DeviceWorker):
    """Raises NotSupportedError, which names what to use."""


class DeviceWorkerFactory(DeviceWorker):
    """Raises NotSupportedError, which names what to use."""
