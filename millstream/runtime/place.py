"""Places: where tensors live."""

from __future__ import annotations

import torch

from millstream.errors import NotSupportedError


class Place:
    """Base of all places."""

    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self).__name__, *self.__dict__.values()))

    def __repr__(self) -> str:
        return type(self).__name__


class CPUPlace(Place):
    """Main memory."""


class CUDAPinnedPlace(Place):
    """Page-locked main memory (plain main memory when torch has no CUDA)."""


class CUDAPlace(Place):
    """A CUDA device.

    Raises NotSupportedError when torch can't use that device.
    """

    def __init__(self, device_id: int = 0) -> None:
        self.device_id = int(device_id)

    def get_device_id(self) -> int:
        return self.device_id

    def torch_device(self) -> torch.device:
        if not torch.cuda.is_available():
            raise NotSupportedError(
                f"CUDAPlace({self.device_id}): this torch build has no CUDA device; "
                "use CPUPlace(), or install a CUDA build of torch (is_compiled_with_cuda() tells which one is here)"
            )
        if self.device_id >= torch.cuda.device_count():
            raise NotSupportedError(f"CUDAPlace({self.device_id}): only {torch.cuda.device_count()} CUDA devices are here")
        return torch.device("cuda", self.device_id)

    def __repr__(self) -> str:
        return f"CUDAPlace({self.device_id})"
