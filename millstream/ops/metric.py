"""Metrics that run as operators: accuracy, AUC, precision and recall, mean IoU, pairs in the right order."""

from __future__ import annotations

import numpy as np
import torch

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError
from millstream.ir.types import VarType
from millstream.kernels.arrays import array
from millstream.ops._opdef import op
from millstream.ops._values import Spec


def _accuracy_spec(out, indices, label):
    rows = out.shape[0]
    if rows >= 0 and label.shape[0] >= 0 and rows != label.shape[0]:
        raise ShapeError(f"Out and Label must have as many rows, received {list(out.shape)} and {list(label.shape)}")
    return Spec((1,), VarType.FP32), Spec((1,), VarType.INT32), Spec((1,), VarType.INT32)


@op(
    "accuracy",
    slots="Out, Indices, Label -> Accuracy, Correct, Total",
    infer=_accuracy_spec,
    lod="Accuracy=Out",
    grad=False,
)
def accuracy(out, indices, label):
    """The share of rows whose label is among the row's k indices.

    Out (scores), Indices: [N, k]; Label: [N, 1]; Accuracy: float32 [1]; Correct, Total: int32 [1].
    """
    n = indices.shape[0]
    if type(indices) is type(label) is torch.Tensor and indices.is_cpu and label.is_cpu:  # numpy has the shorter calls
        hits = indices.numpy() == label.numpy().reshape(n, 1)
        count = np.count_nonzero(hits if hits.shape[1] == 1 else hits.any(1))
        share = np.float32(count) / np.float32(max(n, 1))
        found = np.array([share], np.float32), np.array([count], np.int32), np.array([n], np.int32)
        return tuple(map(torch.from_numpy, found))
    correct = (indices == label.reshape(n, 1)).any(1).sum().reshape(1)
    share = correct.float() / n if n else correct.float()
    return share, correct.int(), torch.full((1,), n, dtype=torch.int32, device=indices.device)


# ---- auc ---------------------------------------------------------------------------------------------
def _auc_spec(predict, label, pos, neg, *, curve, num_thresholds, slide_steps):
    if len(predict.shape) != 2:
        raise ShapeError(f"Predict must be [rows, 1 or 2], received {list(predict.shape)}")
    if num_thresholds < 1 or slide_steps < 0:
        raise AttributeTypeError(
            f"num_thresholds must be positive and slide_steps not negative, received {num_thresholds} and {slide_steps}"
        )
    buckets = num_thresholds + 1
    shape = (1, buckets) if slide_steps == 0 else ((1 + slide_steps) * buckets + 1,)
    stat = Spec(shape, VarType.INT64)
    return Spec((1,), VarType.FP64), stat, stat


@op("auc", slots="Predict, Label, StatPos, StatNeg -> AUC, StatPosOut, StatNegOut", infer=_auc_spec, grad=False)
def auc(predict, label, pos, neg, *, curve: str = "ROC", num_thresholds: int = 8191, slide_steps: int = 1):
    """Area under the ROC curve from histograms of positive and negative scores, by the trapezoid rule.

    Predict: [N, 2] (the last column counts), in [0, 1]; Label: [N, 1]; StatPos, StatNeg: int64 histograms with
    num_thresholds + 1 buckets. slide_steps = 0: everything so far, [1, buckets] (of a longer input the first `buckets`
    elements: fluid.layers.auc starts from one more); otherwise the last `slide_steps` batches: that many windows,
    their sum, and a counter of batches, [(1 + slide_steps) * buckets + 1].
    `curve` is accepted; like Fluid the ROC curve is used whatever it says. AUC: float64 [1].
    """
    buckets = num_thresholds + 1
    score = array(predict)[:, -1].astype(np.float64)
    if score.size and not (score.min() >= 0 and score.max() <= 1):
        raise EnforceNotMet(f"Predict must lie in [0, 1], received values from {score.min()} to {score.max()}")
    bins = (array(predict)[:, -1] * predict.new_tensor(num_thresholds).item()).astype(np.int64)
    positive = array(label.reshape(-1)) != 0
    turn = int(pos.reshape(-1)[-1]) % slide_steps if slide_steps else 0
    outs, totals = [], []
    for stat, mask in ((pos, positive), (neg, ~positive)):
        new = np.bincount(bins[mask], minlength=buckets)
        out = array(stat).reshape(-1).copy()
        if slide_steps == 0:
            out = out[:buckets] + new
            totals.append(out)
            outs.append(torch.from_numpy(out).to(stat.device).reshape(1, buckets))
            continue
        out = out[: (1 + slide_steps) * buckets + 1]
        window = out[turn * buckets : (turn + 1) * buckets]
        total = out[slide_steps * buckets : (slide_steps + 1) * buckets]
        total += new - window
        window[:] = new
        out[-1] += 1
        totals.append(total)
        outs.append(torch.from_numpy(out).to(stat.device))
    area = _area(*totals)
    return torch.tensor([area], dtype=torch.float64, device=predict.device), outs[0], outs[1]


def _area(pos: np.ndarray, neg: np.ndarray) -> float:
    true_positive = np.cumsum(pos[::-1].astype(np.float64))
    before = np.concatenate([[0.0], true_positive[:-1]])
    total = true_positive[-1] * neg.sum()
    return float((neg[::-1] * (true_positive + before)).sum() / 2 / total) if total > 0 else 0.0


# ---- precision_recall --------------------------------------------------------------------------------
def _precision_spec(probs, indices, labels, weights, states, *, class_number):
    shape = () if states is None else states.shape
    if states is not None and (len(shape) != 2 or shape[0] not in (class_number, -1) or shape[1] not in (4, -1)):
        raise ShapeError(f"StatesInfo must be [class_number, 4] = [{class_number}, 4], received {list(states.shape)}")
    metrics = Spec((6,), VarType.FP64)
    return metrics, metrics, Spec((class_number, 4), probs.dtype)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / (a + b), 1 where both are 0."""
    total = a + b
    return np.where(total > 0, a / np.where(total > 0, total, 1), 1.0)


def _harmonic(p: float, r: float) -> float:
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def _metrics(states: np.ndarray) -> np.ndarray:
    tp, fp, _, fn = states.T
    precision, recall = float(_ratio(tp, fp).mean()), float(_ratio(tp, fn).mean())
    micro_p, micro_r = float(_ratio(tp.sum(), fp.sum())), float(_ratio(tp.sum(), fn.sum()))
    return np.array([precision, recall, _harmonic(precision, recall), micro_p, micro_r, _harmonic(micro_p, micro_r)])


@op(
    "precision_recall",
    slots="MaxProbs, Indices, Labels, Weights?, StatesInfo? -> BatchMetrics, AccumMetrics, AccumStatesInfo",
    infer=_precision_spec, grad=False,
)
def precision_recall(probs, indices, labels, weights, states, *, class_number: int):
    """Precision, recall and F1 of a classifier, macro then micro average, of this batch and with StatesInfo added.

    Indices, Labels: int [N, 1]; Weights: [N, 1]; states hold TP, FP, TN, FN a class: [class_number, 4];
    of MaxProbs' dtype; BatchMetrics, AccumMetrics: float64 [6].
    """
    found, truth = (array(t.reshape(-1)).astype(np.int64) for t in (indices, labels))
    for ids, name in ((found, "Indices"), (truth, "Labels")):
        if ids.size and (ids.min() < 0 or ids.max() >= class_number):
            raise EnforceNotMet(f"{name} must lie in [0, {class_number}), received {ids.min()} to {ids.max()}")
    weight = np.ones(len(found)) if weights is None else array(weights.reshape(-1)).astype(np.float64)
    right = found == truth
    batch = np.zeros((class_number, 4))
    np.add.at(batch[:, 0], found[right], weight[right])
    np.add.at(batch[:, 1], found[~right], weight[~right])
    np.add.at(batch[:, 3], truth[~right], weight[~right])
    batch[:, 2] = weight.sum() - batch[:, 0] - batch[:, 1] - batch[:, 3]
    total = batch if states is None else batch + array(states)
    device = indices.device
    return (
        torch.from_numpy(_metrics(batch)).to(device),
        torch.from_numpy(_metrics(total)).to(device),
        torch.from_numpy(total).to(device, probs.dtype),
    )


# ---- mean_iou ----------------------------------------------------------------------------------------
def _iou_spec(predictions, labels, wrongs, corrects, means, *, num_classes):
    counts = Spec((num_classes,), VarType.INT32)
    return Spec((1,), VarType.FP32), counts, counts


@op(
    "mean_iou",
    slots="Predictions, Labels, InWrongs*?, InCorrects*?, InMeanIou*? -> OutMeanIou, OutWrong, OutCorrect",
    infer=_iou_spec, grad=False,
)
def mean_iou(predictions, labels, wrongs, corrects, means, *, num_classes: int):
    """Mean over classes that occur of intersection / union, with counts of earlier batches added.

    Predictions, Labels: int, one shape. OutWrong, OutCorrect: int32 [num_classes]; a wrong prediction counts for both
    its class and the label's. A label that is no class (255 where pixels are to be ignored) leaves only the wrong
    prediction, as in Fluid. InMeanIou is added to the mean. Raises EnforceNotMet: a prediction is no class.
    """
    p, y = predictions.reshape(-1).long(), labels.reshape(-1).long()
    if p.numel() and not (int(p.min()) >= 0 and int(p.max()) < num_classes):
        raise EnforceNotMet(f"Predictions must lie in [0, {num_classes}), received {int(p.min())} to {int(p.max())}")
    off = p != y
    missed = y[off]
    missed = missed[(missed >= 0) & (missed < num_classes)]
    wrong = torch.bincount(p[off], minlength=num_classes) + torch.bincount(missed, minlength=num_classes)
    correct = torch.bincount(p[~off], minlength=num_classes)
    for more in wrongs:
        wrong = wrong + more
    for more in corrects:
        correct = correct + more
    union = wrong + correct
    there = union > 0
    shares = correct[there].float() / union[there].float()
    mean = shares.sum().reshape(1) / max(int(there.sum()), 1)
    for more in means:
        mean = mean + more.reshape(1)
    return mean, wrong.int(), correct.int()


# ---- positive_negative_pair --------------------------------------------------------------------------
def _pair_spec(score, label, query, pos, neg, neutral, weight, *, column):
    if len(score.shape) != 2:
        raise ShapeError(f"Score must be [rows, columns], received {list(score.shape)}")
    given = [s is not None for s in (pos, neg, neutral)]
    if any(given) and not all(given):
        raise ShapeError("AccumulatePositivePair, AccumulateNegativePair and AccumulateNeutralPair must be given together")
    one = Spec((1,), score.dtype)
    return one, one, one


@op(
    "positive_negative_pair",
    slots="Score, Label, QueryID, AccumulatePositivePair?, AccumulateNegativePair?, AccumulateNeutralPair?, Weight?"
    " -> PositivePair, NegativePair, NeutralPair?",
    infer=_pair_spec, grad=False,
)
def positive_negative_pair(score, label, query, pos, neg, neutral, weight, *, column: int = 0):
    """Pairs of rows of one query with different labels: scored in the labels' order (positive) or not (negative).

    A pair counts with the mean of its rows' weights; equal scores count as neutral and as negative.
    Score: [N, columns], of which `column` is used (negative: from the end); Label, Weight: [N, 1]; QueryID: int [N, 1].
    """
    if not -score.shape[1] <= column < score.shape[1]:
        raise EnforceNotMet(f"column must lie in [-{score.shape[1]}, {score.shape[1]}), received {column}")
    s, y = array(score)[:, column].astype(np.float64), array(label.reshape(-1)).astype(np.float64)
    ids = array(query.reshape(-1))
    w = np.ones(len(s)) if weight is None else array(weight.reshape(-1)).astype(np.float64)
    counts = np.zeros(3) if pos is None else np.array([float(t.reshape(-1)[0]) for t in (pos, neg, neutral)])
    order = np.argsort(ids, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        i, j = np.triu_indices(len(group), 1)
        i, j = group[i], group[j]
        keep = y[i] != y[j]
        i, j = i[keep], j[keep]
        share = (w[i] + w[j]) * 0.5
        right = (s[i] - s[j]) * (y[i] - y[j]) > 0
        counts += share[right].sum(), share[~right].sum(), share[s[i] == s[j]].sum()
    return tuple(torch.tensor([c], dtype=score.dtype, device=score.device) for c in counts.tolist())
