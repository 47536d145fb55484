"""Metrics that gather a quantity over mini-batches, in Python."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError
from millstream.fluid import layers
from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.ir import names
from millstream.ir.program import Program, program_guard

__all__ = [
    "Accuracy",
    "Auc",
    "ChunkEvaluator",
    "CompositeMetric",
    "DetectionMAP",
    "EditDistance",
    "MetricBase",
    "Precision",
    "Recall",
]


def _is_number(value: Any) -> bool:
    """A Python or numpy number, or an array of one element in one dimension, as a fetched count is."""
    return isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.shape == (1,))


class MetricBase:
    """A metric whose public attributes are its state.

    Args:
        name: shown by :meth:`get_config`.
    """

    def __init__(self, name: str | None) -> None:
        self._name = str(name) if name is not None else type(self).__name__

    def __str__(self) -> str:
        return self._name

    def _states(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def reset(self) -> None:
        """Forget all mini-batches: numbers and arrays of the state become 0, anything else None.

        Attributes whose names start with an underscore are no state: they stay as they are.
        """
        for name, value in self._states().items():
            if isinstance(value, (int, float)):
                setattr(self, name, 0 if isinstance(value, int) else 0.0)
            elif isinstance(value, (np.ndarray, np.generic)):
                setattr(self, name, np.zeros_like(value))
            else:
                setattr(self, name, None)

    def get_config(self) -> dict[str, Any]:
        """``{"name": …, "states": …}``: a copy of the state."""
        return {"name": self._name, "states": copy.deepcopy(self._states())}

    def update(self, preds: Any, labels: Any) -> None:
        """Take in one mini-batch."""
        raise NotImplementedError("Should not use it directly, please extend it.")

    def eval(self) -> Any:
        """The metric over all mini-batches since the last reset."""
        raise NotImplementedError("Should not use it directly, please extend it.")

    def _need(self, condition: bool, message: str) -> None:
        if not condition:
            raise ValueError(f"{type(self).__name__}: {message}")


class CompositeMetric(MetricBase):
    """Several metrics with the same inputs.

    As in Fluid 1.8.5, :meth:`reset` does not reach them: reset each metric that was added instead.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._metrics: list[MetricBase] = []

    def add_metric(self, metric: MetricBase) -> None:
        """Add one; its eval() is one entry of this one's."""
        self._need(isinstance(metric, MetricBase), "SubMetric should be inherit from MetricBase.")
        self._metrics.append(metric)

    def update(self, preds: Any, labels: Any) -> None:
        """Take in one mini-batch."""
        for metric in self._metrics:
            metric.update(preds, labels)

    def eval(self) -> list[Any]:
        """One value for each metric, in order."""
        return [metric.eval() for metric in self._metrics]


class _Binary(MetricBase):
    """Counts over probabilities of the positive class, cut at 0.5."""

    def _cut(self, preds: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
        for name, value in (("preds", preds), ("labels", labels)):
            self._need(isinstance(value, np.ndarray), f"The '{name}' must be a numpy ndarray.")
        self._need(
            preds.shape[0] == labels.shape[0],
            f"preds has {preds.shape[0]} samples, labels {labels.shape[0]}; expected as many",
        )
        for name, value in (("preds", preds), ("labels", labels)):
            self._need(value.size == len(value), f"{name} must have one value a sample, received {list(value.shape)}")
        return np.rint(preds).astype("int32").reshape(-1), labels.reshape(-1)


class Precision(_Binary):
    """tp / (tp + fp) of binary classification. preds: probabilities [N, 1]; labels: 0 or 1, [N, 1]."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.tp = 0
        self.fp = 0

    def update(self, preds: Any, labels: Any) -> None:
        """Take in one mini-batch."""
        found, truth = self._cut(preds, labels)
        self.tp += int(((found == 1) & (truth == 1)).sum())
        self.fp += int(((found == 1) & (truth != 1)).sum())

    def eval(self) -> float:
        """0 before anything was predicted positive."""
        total = self.tp + self.fp
        return self.tp / total if total else 0.0


class Recall(_Binary):
    """tp / (tp + fn) of binary classification. preds: probabilities [N, 1]; labels: 0 or 1, [N, 1]."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.tp = 0
        self.fn = 0

    def update(self, preds: Any, labels: Any) -> None:
        """Take in one mini-batch."""
        found, truth = self._cut(preds, labels)
        self.tp += int(((truth == 1) & (found == 1)).sum())
        self.fn += int(((truth == 1) & (found != 1)).sum())

    def eval(self) -> float:
        """0 before anything was positive."""
        total = self.tp + self.fn
        return self.tp / total if total else 0.0


class Accuracy(MetricBase):
    """The weighted mean of ``layers.accuracy`` over mini-batches."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.value = 0.0
        self.weight = 0.0

    def update(self, value: Any, weight: Any) -> None:
        """Take in the accuracy of a mini-batch and its size."""
        known = _is_number(value) or isinstance(value, np.ndarray)
        self._need(known, "The 'value' must be a number(int, float) or a numpy ndarray.")
        self._need(_is_number(weight), "The 'weight' must be a number(int, float).")
        self._need(not np.any(np.asarray(weight) < 0), "The 'weight' can not be negative")
        self.value += value * weight
        self.weight += weight

    def eval(self) -> Any:
        """ValueError before any update."""
        self._need(
            not np.all(np.asarray(self.weight) == 0),
            "There is no data in Accuracy Metrics. Please check layers.accuracy output has added to Accuracy.",
        )
        return self.value / self.weight


class ChunkEvaluator(MetricBase):
    """Precision, recall and F1 of chunks, from the counts that ``layers.chunk_eval`` gives."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.num_infer_chunks: Any = 0
        self.num_label_chunks: Any = 0
        self.num_correct_chunks: Any = 0

    def update(self, num_infer_chunks: Any, num_label_chunks: Any, num_correct_chunks: Any) -> None:  # type: ignore[override]
        """Take in the counts of a mini-batch."""
        given = {
            "num_infer_chunks": num_infer_chunks,
            "num_label_chunks": num_label_chunks,
            "num_correct_chunks": num_correct_chunks,
        }
        for name, value in given.items():
            self._need(_is_number(value), f"The '{name}' must be a number(int) or a numpy ndarray.")
        self.num_infer_chunks += num_infer_chunks
        self.num_label_chunks += num_label_chunks
        self.num_correct_chunks += num_correct_chunks

    def eval(self) -> tuple[Any, Any, Any]:
        """(precision, recall, F1); 0 where nothing was counted."""
        correct = self.num_correct_chunks
        precision = correct / self.num_infer_chunks if self.num_infer_chunks else 0
        recall = correct / self.num_label_chunks if self.num_label_chunks else 0
        f1 = 2 * precision * recall / (precision + recall) if correct else 0
        return precision, recall, f1


class EditDistance(MetricBase):
    """Mean edit distance and share of wrong sequences, from what ``layers.edit_distance`` gives."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.total_distance = 0.0
        self.seq_num: Any = 0
        self.instance_error: Any = 0

    def update(self, distances: Any, seq_num: Any) -> None:
        """Take in the distances [N, 1] of a mini-batch and its number of sequences."""
        self._need(isinstance(distances, np.ndarray), "The 'distances' must be a numpy ndarray.")
        self._need(_is_number(seq_num), "The 'seq_num' must be a number(int) or a numpy ndarray.")
        self.total_distance += float(np.sum(distances))
        self.seq_num += seq_num
        self.instance_error += seq_num - int(np.sum(distances == 0))

    def eval(self) -> tuple[Any, Any]:
        """(mean distance, share of sequences that are not right); ValueError before any update."""
        self._need(
            bool(np.all(self.seq_num)),
            "There is no data in EditDistance Metric. "
            "Please check layers.edit_distance output has been added to EditDistance.",
        )
        return self.total_distance / self.seq_num, self.instance_error / self.seq_num


class Auc(MetricBase):
    """The area under a curve, by histograms of the positive class's probability.

    Args:
        curve: "ROC" (false against true positive rate), or "PR" (recall against precision).
        num_thresholds: number of bins of the probability.

    preds: [N, 2], probabilities of the negative and positive class; labels: 0 or 1, [N, 1].

    As in Fluid 1.8.5, :meth:`reset` keeps the histograms: the area is over everything since the object was made.
    For the area of one pass, make a new Auc. (1.8.5 computes the ROC's area for "PR" as well.)
    """

    def __init__(self, name: str | None, curve: str = "ROC", num_thresholds: int = 4095) -> None:
        super().__init__(name)
        self._need(curve in ("ROC", "PR"), f"curve must be 'ROC' or 'PR', received {curve!r}")
        self._need(num_thresholds >= 1, f"num_thresholds must be positive, received {num_thresholds}")
        self._curve = curve
        self._num_thresholds = num_thresholds
        self._stat_pos = np.zeros(num_thresholds + 1, dtype=np.int64)
        self._stat_neg = np.zeros(num_thresholds + 1, dtype=np.int64)

    def update(self, preds: Any, labels: Any) -> None:
        """Take in one mini-batch."""
        for name, value in (("preds", preds), ("labels", labels)):
            self._need(isinstance(value, np.ndarray), f"The '{name}' must be a numpy ndarray.")
        self._need(preds.ndim == 2 and preds.shape[1] >= 2, f"preds must be [N, 2], received {list(preds.shape)}")
        self._need(labels.size == len(preds), f"preds has {len(preds)} samples, labels {labels.size}; expected as many")
        bins = (preds[:, 1] * self._num_thresholds).astype(np.int64)
        self._need(bool(((bins >= 0) & (bins <= self._num_thresholds)).all()), "preds must be probabilities between 0 and 1")
        truth = labels.reshape(-1).astype(bool)
        size = self._num_thresholds + 1
        self._stat_pos += np.bincount(bins[truth], minlength=size)
        self._stat_neg += np.bincount(bins[~truth], minlength=size)

    @staticmethod
    def trapezoid_area(x1: float, x2: float, y1: float, y2: float) -> float:
        """The area under the line from (x1, y1) to (x2, y2)."""
        return abs(x1 - x2) * (y1 + y2) / 2.0

    def eval(self) -> float:
        """The area; 0 while one of the classes is missing."""
        positive = np.concatenate([[0], np.cumsum(self._stat_pos[::-1])]).astype(float)  # above each threshold
        negative = np.concatenate([[0], np.cumsum(self._stat_neg[::-1])]).astype(float)
        if not positive[-1] or not negative[-1]:
            return 0.0
        if self._curve == "ROC":
            x, y = negative / negative[-1], positive / positive[-1]
        else:
            found = positive + negative
            x, y = positive / positive[-1], np.divide(positive, found, out=np.ones_like(found), where=found > 0)
        return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2.0))


class DetectionMAP:
    """Mean average precision of detections: of each mini-batch, and over all of them.

    Args:
        input: detections [M, 6] with LoD: label, confidence, xmin, ymin, xmax, ymax.
        gt_label: [N, 1] with LoD. gt_box: [N, 4] with LoD. gt_difficult: [N, 1] with LoD, or None.
        class_num: number of classes, the background included.
        ap_version: "integral" or "11point".
    """

    def __init__(
        self,
        input: Any,
        gt_label: Any,
        gt_box: Any,
        gt_difficult: Any = None,
        class_num: int | None = None,
        background_label: int = 0,
        overlap_threshold: float = 0.5,
        evaluate_difficult: bool = True,
        ap_version: str = "integral",
    ) -> None:
        self.helper = LayerHelper("map_eval")
        if class_num is None:
            raise InvalidProgramError("DetectionMAP: class_num is needed: the number of classes with the background")
        parts = [layers.cast(x=gt_label, dtype=gt_box.dtype)]
        if gt_difficult is not None:
            parts.append(layers.cast(x=gt_difficult, dtype=gt_box.dtype))
        label = layers.concat([*parts, gt_box], axis=1)
        options = {
            "overlap_threshold": overlap_threshold,
            "evaluate_difficult": evaluate_difficult,
            "ap_version": ap_version,
        }
        detection_map: Any = layers.detection_map  # type: ignore[attr-defined]
        self.cur_map = detection_map(input, label, class_num, background_label, **options)
        states = [
            self._create_state("int32", None, "accum_pos_count"),
            self._create_state("float32", None, "accum_true_pos"),
            self._create_state("float32", None, "accum_false_pos"),
        ]
        self.has_state = self._create_state("int32", [1], "has_state")
        self.helper.set_variable_initializer(self.has_state, Constant(0))
        self.accum_map = detection_map(
            input,
            label,
            class_num,
            background_label,
            has_state=self.has_state,
            input_states=states,
            out_states=states,
            **options,
        )
        layers.fill_constant(shape=self.has_state.shape, value=1, dtype=self.has_state.dtype, out=self.has_state)

    def _create_state(self, dtype: str, shape: list[int] | None, suffix: str) -> Any:
        name = f"{names.generate(self.helper.name)}_{suffix}"
        return self.helper.create_global_variable(name=name, persistable=True, dtype=dtype, shape=shape)

    def get_map_var(self) -> tuple[Any, Any]:
        """(the Variable of this mini-batch's mAP, that of the mAP over all mini-batches)."""
        return self.cur_map, self.accum_map

    def reset(self, executor: Any, reset_program: Program | None = None) -> None:
        """Forget all mini-batches."""
        program = Program() if reset_program is None else reset_program
        with program_guard(program, Program()):
            var = program.global_block().create_var(
                name=self.has_state.name, dtype=self.has_state.dtype, shape=self.has_state.shape, persistable=True
            )
            layers.fill_constant(shape=var.shape, value=0, dtype=var.dtype, out=var)
        executor.run(program)
