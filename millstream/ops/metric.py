"""Metrics that run as operators: accuracy, AUC, chunks, edit distance, precision and recall, mean IoU, pairs."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ir.types import VarType
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _accuracy_spec(out, indices, label):
    rows = out.shape[0]
    if rows >= 0 and label.shape[0] >= 0 and rows != label.shape[0]:
        raise ShapeError(f"Out and Label must have the same number of rows, received {list(out.shape)} and {list(label.shape)}")
    return Spec((1,), VarType.FP32), Spec((1,), VarType.INT32), Spec((1,), VarType.INT32)


@op("accuracy", slots="Out, Indices, Label -> Accuracy, Correct, Total", infer=_accuracy_spec, grad=False)
def accuracy(out, indices, label):
    """The share of rows whose label is among the row's k indices.

    Out (scores), Indices: [N, k]; Label: [N, 1]; Accuracy: float32 [1]; Correct, Total: int32 [1].
    """
    n = indices.shape[0]
    correct = (indices == label.reshape(n, 1)).any(1).sum().reshape(1)
    share = correct.float() / n if n else correct.float()
    return share, correct.int(), torch.full((1,), n, dtype=torch.int32, device=indices.device)
