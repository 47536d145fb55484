"""Mean average precision of detections: detection_map."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Ragged, Spec
from millstream.ops.detection.boxes import overlap
from millstream.ops.tensor._dims import fit

_Hits = dict[int, list[tuple[float, int]]]  # class -> (score, 1 or 0) in the order seen


def _infer(found: Spec, label: Spec, *_: Spec, class_num, ap_type, **__: Any) -> tuple[Spec | None, ...]:
    if len(found.shape) != 2 or not fit(found.shape[1], 6):
        raise ShapeError(f"DetectRes must have shape [detections, 6], received {list(found.shape)}")
    if len(label.shape) != 2 or label.shape[1] not in (5, 6, -1):
        raise ShapeError(f"Label must have shape [boxes, 5] or [boxes, 6], received {list(label.shape)}")
    if ap_type not in ("integral", "11point"):
        raise AttributeTypeError(f"ap_type must be integral or 11point, received {ap_type!r}")
    return None, None, None, Spec((1,), found.dtype)


def _state(x: Ragged | None) -> _Hits:
    if x is None:
        return {}
    rows = x.values.numpy().reshape(-1, 2)
    return {
        c: [(float(s), int(f)) for s, f in rows[x.offsets[c] : x.offsets[c + 1]]]
        for c in range(len(x.offsets) - 1)
        if x.offsets[c + 1] > x.offsets[c]
    }


def _judge(
    found: np.ndarray, truth: np.ndarray, threshold: float, count_difficult: bool, right: _Hits, wrong: _Hits
) -> None:
    """Add the detections of one image: right when the box they overlap most is of their class and not taken yet."""
    for c in dict.fromkeys(found[:, 0].astype(int).tolist()):
        mine = found[found[:, 0].astype(int) == c]
        boxes = truth[truth[:, 0].astype(int) == c]
        if len(boxes):  # all of them are wrong otherwise, and stay as they came
            mine = mine[np.argsort(-mine[:, 1], kind="stable")]
        hits, misses = right.setdefault(c, []), wrong.setdefault(c, [])
        taken = np.zeros(len(boxes), dtype=bool)
        clipped = torch.from_numpy(np.clip(mine[:, 2:6], 0, 1))
        shared = overlap(clipped, torch.from_numpy(np.ascontiguousarray(boxes[:, -4:])), 0.0)
        overlaps = torch.nan_to_num(shared, nan=0.0).numpy()
        for k, row in enumerate(mine):
            score = float(row[1])
            at = int(overlaps[k].argmax()) if len(boxes) else -1
            good = at >= 0 and bool(overlaps[k, at] > np.float32(threshold))
            if good and not count_difficult and boxes.shape[1] == 6 and boxes[at, 1] != 0:
                continue  # a difficult box counts neither way
            good = good and not bool(taken[at])
            if good:
                taken[at] = True
            hits.append((score, int(good)))
            misses.append((score, int(not good)))


def _precision(hits: list[tuple[float, int]], misses: list[tuple[float, int]], total: int, kind: str) -> float:
    """Average precision of one class."""
    right = np.cumsum([f for _, f in sorted(hits, key=lambda p: -p[0])])
    wrong = np.cumsum([f for _, f in sorted(misses, key=lambda p: -p[0])])
    precision = right / np.maximum(right + wrong, 1e-12)
    recall = right / total
    if kind == "integral":
        steps = np.diff(np.concatenate([[0.0], recall]))
        return float((precision * np.abs(steps)).sum())
    return float(sum(max((p for p, r in zip(precision, recall) if r >= j / 10.0), default=0.0) for j in range(11)) / 11)


def _rows(hits: _Hits, classes: int, dtype: torch.dtype) -> Ragged:
    parts = [hits.get(c, []) for c in range(classes)]
    ends = np.cumsum([0] + [len(p) for p in parts]).astype(np.int64)
    flat = np.array([pair for p in parts for pair in p], dtype=np.float64).reshape(-1, 2)
    return Ragged(torch.from_numpy(flat).to(dtype), (ends,))


@op(
    "detection_map",
    slots="DetectRes#, Label#, HasState?, PosCount?, TruePos#?, FalsePos#? -> "
    "AccumPosCount, AccumTruePos#, AccumFalsePos#, MAP",
    infer=_infer,
    grad=False,
)
def detection_map(
    found,
    label,
    has_state,
    pos_count,
    true_pos,
    false_pos,
    *,
    class_num: int,
    background_label: int = 0,
    overlap_threshold: float = 0.5,
    evaluate_difficult: bool = True,
    ap_type: str = "integral",
):
    """Mean over classes of the average precision (Everingham et al. 2010, PASCAL VOC).

    DetectRes [., 6] (label, score, box), Label [., 6] (label, difficult, box) or [., 5], a sequence an image each. The
    counts of boxes [class_num, 1] and the judged detections (score, 0 or 1; a sequence a class) come in if HasState is not 0
    and go out added up. MAP [1], of DetectRes' dtype like the judged detections. As in 1.8.5,
    classes with `background_label` boxes (that many, not of that name) are left out of the mean, and so are classes
    without boxes unless the state brought them.
    """
    keep = has_state is not None and int(has_state.reshape(-1)[0]) != 0 and pos_count is not None
    count = np.zeros(class_num, np.int64)
    right: _Hits = {}
    wrong: _Hits = {}
    named = np.zeros(class_num, bool)
    if keep:
        held = pos_count.reshape(-1).numpy()[:class_num]
        count[: len(held)] += held
        named[: len(held)] = True
        right, wrong = _state(true_pos), _state(false_pos)
    detections, truths = found.values.numpy(), label.values.numpy()
    for i in range(len(label.offsets) - 1):
        truth = truths[label.offsets[i] : label.offsets[i + 1]]
        counted = truth if evaluate_difficult or truth.shape[1] == 5 else truth[truth[:, 1] == 0]
        if counted.size and counted[:, 0].min() < 0:
            raise EnforceNotMet(f"classes in Label must not be negative, received {counted[:, 0].min():g}")
        count += np.bincount(counted[:, 0].astype(int), minlength=class_num)[:class_num]
        mine = detections[found.offsets[i] : found.offsets[i + 1]]
        _judge(mine, truth, overlap_threshold, evaluate_difficult, right, wrong)
    total, classes = 0.0, 0
    for c in range(class_num):
        if count[c] == background_label or not (count[c] or named[c]):
            continue
        classes += 1
        if count[c] and right.get(c):
            total += _precision(right[c], wrong[c], int(count[c]), ap_type)
    dtype = found.values.dtype
    mean = torch.tensor([total / classes if classes else 0.0], dtype=dtype)
    counts = torch.from_numpy(count.astype(np.int32).reshape(-1, 1))
    return counts, _rows(right, class_num, dtype), _rows(wrong, class_num, dtype), mean
