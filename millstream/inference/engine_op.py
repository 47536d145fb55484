"""The operator that runs a sub-model on an engine. Forms of a Model hold it (partition.py); files never do."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from millstream.inference.engines import Compiled
from millstream.ops._opdef import op


class SubModel:
    """A part of a Program that an engine has prepared.

    Attributes:
        key: by which the operator finds it.
        engine: name of the engine; types: the operators inside, in order.
        run: inputs to outputs.
        keeps: its outputs stay as they are when it runs again.
    """

    def __init__(self, key: str, engine: str, types: list[str], run: Compiled, size: int) -> None:
        self.key = key
        self.engine = engine
        self.types = types
        self.run = run
        self.keeps = engine != "openvino"
        self.size = size  # bytes of the model that the engine was given


PREPARED: WeakValueDictionary[str, SubModel] = WeakValueDictionary()
"""Sub-models by key. Their Forms own them."""


@op("engine_run", slots="X* -> Out*", infer=False, grad=False)
def engine_run(xs: list[torch.Tensor], *, engine: str, model: str) -> list[torch.Tensor]:
    """Out = the sub-model `model` of X, computed by `engine`. Tensors without LoD; the shapes are the sub-model's."""
    return [torch.from_numpy(_writable(y)) for y in PREPARED[model].run([array_of(x) for x in xs])]


def array_of(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """The array over a tensor's memory (copied only when it is not contiguous, or on a device)."""
    return x.numpy() if x.is_contiguous() and not x.is_cuda else x.contiguous().cpu().numpy()


def _writable(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return value if value.flags.writeable else value.copy()
