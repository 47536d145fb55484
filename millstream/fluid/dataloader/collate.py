"""Samples into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["default_collate_fn"]


def default_collate_fn(batch: Sequence[Any]) -> list[np.ndarray]:
    """One stacked array for each field of the samples (for the samples themselves when they have no fields).

    Raises ValueError naming the sample and the field that do not fit the others.
    """
    first = batch[0]
    if isinstance(first, dict):
        raise TypeError("DataLoader: samples are dicts, which have no order to feed in; give a collate_fn that makes lists")
    if not isinstance(first, (tuple, list)):
        return [_stack([*batch], 0)]
    for k, sample in enumerate(batch):
        if len(sample) != len(first):
            raise ValueError(f"DataLoader: sample {k} of a batch has {len(sample)} fields, sample 0 has {len(first)}")
    return [_stack(column, k) for k, column in enumerate(zip(*batch))]


def _stack(items: Sequence[Any], field: int) -> np.ndarray:
    try:
        array = np.stack(items) if isinstance(items[0], np.ndarray) else np.array([np.asarray(v) for v in items])
    except ValueError:
        shapes = [np.shape(v) for v in items]
        k = next((k for k, s in enumerate(shapes) if s != shapes[0]), 0)
        raise ValueError(
            f"DataLoader: field {field} of sample {k} has shape {list(shapes[k])}, that of sample 0 {list(shapes[0])}; "
            "pad them in a collate_fn, or make LoDTensors there"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"DataLoader: field {field} of the samples is not numeric: {str(items[0])[:60]!r}")
    return array
