"""Evaluators of 1.1: metrics whose sums are variables of the Program itself. ``fluid.metrics`` replaced them."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.fluid import layers, metrics
from millstream.fluid.layer_helper import LayerHelper
from millstream.ir import names
from millstream.ir.program import Program, program_guard
from millstream.ir.variable import Variable

__all__ = ["ChunkEvaluator", "DetectionMAP", "EditDistance", "Evaluator"]


def _twin(block: Any, var: Variable) -> Any:
    return block.create_var(name=var.name, shape=var.shape, dtype=var.dtype, lod_level=var.lod_level, persistable=True)


class Evaluator:
    """A quantity summed over the runs of a Program.

    Attributes:
        states: Variables that hold the sums.
        metrics: Variables with the quantity of one mini-batch.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        self.states: list[Any] = []
        self.metrics: list[Any] = []
        self.helper = LayerHelper(name, **kwargs)

    def reset(self, executor: Any, reset_program: Program | None = None) -> None:
        """Set the sums to 0."""
        program = Program() if reset_program is None else reset_program
        with program_guard(program, Program()):
            for state in self.states:
                var = _twin(program.global_block(), state)
                layers.fill_constant(shape=var.shape, value=0, dtype=var.dtype, out=var)
        executor.run(program)

    def eval(self, executor: Any, eval_program: Program | None = None) -> Any:
        """The quantity over all runs since the last reset."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to evaluate its states")

    def _create_state(self, suffix: str, dtype: Any, shape: Any) -> Any:
        """A persistable Variable that reset() sets to 0."""
        name = f"{names.generate(self.helper.name)}_{suffix}"
        state = self.helper.create_global_variable(name=name, persistable=True, dtype=dtype, shape=shape)
        self.states.append(state)
        return state

    def _add(self, state: Any, value: Any) -> None:
        layers.sums(input=[state, value], out=state)

    def _sums(self, executor: Any, eval_program: Program | None) -> list[np.ndarray]:
        program = Program() if eval_program is None else eval_program
        for state in self.states:
            _twin(program.global_block(), state)
        return [np.asarray(v, "float32") for v in executor.run(program, fetch_list=[s.name for s in self.states])]


class ChunkEvaluator(Evaluator):
    """Precision, recall and F1 of chunks over all runs; see ``layers.chunk_eval``."""

    def __init__(
        self,
        input: Any,
        label: Any,
        chunk_scheme: str,
        num_chunk_types: int,
        excluded_chunk_types: list[int] | None = None,
    ) -> None:
        super().__init__("chunk_eval")
        self.num_infer_chunks = self._create_state("num_infer_chunks", "int64", [1])
        self.num_label_chunks = self._create_state("num_label_chunks", "int64", [1])
        self.num_correct_chunks = self._create_state("num_correct_chunks", "int64", [1])
        precision, recall, f1, infer, truth, correct = layers.chunk_eval(
            input=input,
            label=label,
            chunk_scheme=chunk_scheme,
            num_chunk_types=num_chunk_types,
            excluded_chunk_types=excluded_chunk_types,
        )
        for state, value in zip(self.states, (infer, truth, correct)):
            self._add(state, value)
        self.metrics.extend([precision, recall, f1])

    def eval(self, executor: Any, eval_program: Program | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(precision, recall, F1), each float32 [1]; 0 where nothing was counted."""
        infer, truth, correct = self._sums(executor, eval_program)
        zero = np.zeros_like(correct)
        precision = correct / infer if infer[0] else zero
        recall = correct / truth if truth[0] else zero
        f1 = 2 * precision * recall / (precision + recall) if correct[0] else zero
        return precision, recall, f1


class EditDistance(Evaluator):
    """Mean edit distance and share of wrong sequences over all runs; see ``layers.edit_distance``.

    Args:
        ignored_tokens: erased from both sides before they are compared.
    """

    def __init__(self, input: Any, label: Any, ignored_tokens: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__("edit_distance", **kwargs)
        self.total_distance = self._create_state("total_distance", "float32", [1])
        self.seq_num = self._create_state("seq_num", "int64", [1])
        self.instance_error = self._create_state("instance_error", "int64", [1])
        distances, count = layers.edit_distance(input=input, label=label, ignored_tokens=ignored_tokens)
        zero = layers.fill_constant(shape=[1], value=0.0, dtype="float32")
        right = layers.reduce_sum(layers.cast(x=layers.equal(distances, zero), dtype="int64"))
        wrong = layers.elementwise_sub(x=count, y=right)
        total = layers.reduce_sum(distances)
        self._add(self.total_distance, total)
        self._add(self.seq_num, count)
        self._add(self.instance_error, wrong)
        self.metrics.extend([total, wrong])

    def eval(self, executor: Any, eval_program: Program | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(mean distance, share of sequences that are not right), float32 [1]; NaN before the first run."""
        total, count, wrong = self._sums(executor, eval_program)
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / count, wrong / count


class DetectionMAP(metrics.DetectionMAP):
    """Mean average precision of detections; see ``fluid.metrics.DetectionMAP``."""

    def eval(self, executor: Any, eval_program: Program | None = None) -> Any:
        """Fetch the second Variable of get_map_var() in a run instead: this metric is computed while the Program runs."""
        raise NotImplementedError("DetectionMAP has no eval(): fetch get_map_var()[1] in the last run of a pass")
