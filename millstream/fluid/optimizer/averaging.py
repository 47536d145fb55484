"""ModelAverage and ExponentialMovingAverage: averaged parameters for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append
from millstream.fluid.layers.control_flow import Switch
from millstream.fluid.layers.nn.host import autoincreased_step_counter
from millstream.fluid.layers.tensor import assign, cast, create_global_var
from millstream.fluid.optimizer.eager import refuse_eager
from millstream.fluid.optimizer.optimizer import Optimizer
from millstream.ir import names
from millstream.ir.program import Program, default_main_program, name_scope, program_guard


def _clone(block: Any, var: Any) -> Any:
    """`var` of another Program in `block`, persistable."""
    return block.create_var(
        name=var.name, shape=var.shape if var.has_shape else None, dtype=var.dtype, type=var.type,
        lod_level=var.lod_level, persistable=True,
    )  # fmt: skip


def _averaged_parameters() -> list[Any]:
    return [p for p in default_main_program().global_block().all_parameters() if p.do_model_average is not False]


class ModelAverage(Optimizer):
    """The mean of each parameter over the last steps, as many as window allows.

    Make it after ``optimizer.minimize``: it appends the counting to the main Program.

    Args:
        average_window_rate: the window is this share of the number of updates, but
        min_average_window, max_average_window: at least and at most so many steps.
        regularization, name: as of Optimizer.

    Use::

        with model_average.apply(executor):
            ...  # evaluate with averaged parameters
    """

    def __init__(
        self,
        average_window_rate: float,
        min_average_window: int = 10000,
        max_average_window: int = 10000,
        regularization: Any = None,
        name: str | None = None,
    ) -> None:
        refuse_eager("ModelAverage")
        super().__init__(0.0, regularization=regularization, name=name)
        self.average_window = average_window_rate
        self.min_average_window = min_average_window
        self.max_average_window = max_average_window
        self.params_grads: list[tuple[Any, Any]] = []
        for param in _averaged_parameters():
            kept = param.block.create_var(
                name=names.generate(f"{param.name}.tmp"), dtype=param.dtype, persistable=False, stop_gradient=True
            )
            self.params_grads.append((param, kept))
        self.helper = LayerHelper("average_accumulate")
        for pair in self.params_grads:
            with pair[0].block.program._optimized_guard(pair), name_scope("move_average"):
                self._append_average_accumulate_op(pair[0])
        self.apply_program = Program()
        with program_guard(self.apply_program):
            for pair in self.params_grads:
                self._add_average_apply_op(self.apply_program.global_block(), pair)
        self.restore_program = Program()
        with program_guard(self.restore_program):
            for pair in self.params_grads:
                self._add_average_restore_op(self.restore_program.global_block(), pair)

    def _append_average_accumulate_op(self, param: Any) -> None:
        found = {f"sum_{k}": self._add_accumulator(f"sum_{k}", param) for k in (1, 2, 3)}
        for name in ("num_accumulates", "old_num_accumulates", "num_updates"):
            found[name] = self._add_accumulator(name, param, dtype="int64", shape=[1])
        self.helper.append_op(
            type="average_accumulates",
            inputs={"param": param, **{f"in_{n}": v for n, v in found.items()}},
            outputs={f"out_{n}": v for n, v in found.items()},
            attrs={
                "average_window": self.average_window,
                "min_average_window": self.min_average_window,
                "max_average_window": self.max_average_window,
            },
        )

    def _add_average_apply_op(self, block: Any, pair: Any) -> None:
        param, kept = _clone(block, pair[0]), _clone(block, pair[1])
        found = {
            n: _clone(block, self._get_accumulator(n, pair[0]))
            for n in ("sum_1", "sum_2", "sum_3", "num_accumulates", "old_num_accumulates")
        }
        assign(input=param, output=kept)
        counts = [found["num_accumulates"], found["old_num_accumulates"]]
        count = append("sum", "sum", {"X": counts}, {"use_mkldnn": False}, dtype=counts[0].dtype)
        parts = [found["sum_1"], found["sum_2"], found["sum_3"]]
        total = append("sum", "sum", {"X": parts}, {"use_mkldnn": False}, dtype=param.dtype)
        dtype = "float32" if self._dtype is None else self._dtype
        count, total = cast(count, dtype), cast(total, dtype)
        append("elementwise_div", "elementwise_div", {"X": total, "Y": count}, {"axis": -1}, dtype=param.dtype, out=param)

    def _add_average_restore_op(self, block: Any, pair: Any) -> None:
        assign(input=_clone(block, pair[1]), output=_clone(block, pair[0]))

    @contextmanager
    def apply(self, executor: Any, need_restore: bool = True) -> Iterator[None]:
        """Parameters hold their averages inside the ``with`` (and afterwards, unless `need_restore`)."""
        executor.run(self.apply_program)
        try:
            yield
        finally:
            if need_restore:
                self.restore(executor)

    def restore(self, executor: Any) -> None:
        """Give the parameters their own values back."""
        executor.run(self.restore_program)


class ExponentialMovingAverage:
    """ema = decay * ema + (1 - decay) * parameter, for evaluation corrected by 1 - decay^steps.

    Call :meth:`update` after ``optimizer.minimize``: it appends the averaging to the main Program.

    As in Fluid 1.8.5, :meth:`apply` writes the corrected values back to the averages, and `thres_steps` of an integer
    type is divided as integers (the rate is then always `decay`; cast it to float32 for what the formula says).

    Args:
        decay: a number in (0, 1).
        thres_steps: Variable; the rate is min(decay, (thres_steps + 1) / (thres_steps + 10)).
        name: prefix of the averages' names.
    """

    def __init__(self, decay: float = 0.999, thres_steps: Any = None, name: str | None = None) -> None:
        refuse_eager("ExponentialMovingAverage")
        self._decay = decay
        self._thres_steps = thres_steps
        self._name = name if name is not None else ""
        self._decay_var = self._get_ema_decay()
        self._step_counter_name = "@EMA_STEP_COUNTER@"
        self._params_tmps: list[tuple[Any, Any]] = []
        for param in _averaged_parameters():
            tmp = param.block.create_var(
                name=names.generate(f"{self._name}{param.name}.ema_tmp"),
                dtype=param.dtype,
                persistable=False,
                stop_gradient=True,
            )
            self._params_tmps.append((param, tmp))
        self._ema_vars: dict[str, Any] = {}
        for param, tmp in self._params_tmps:
            with param.block.program._optimized_guard([param, tmp]), name_scope("moving_average"):
                self._ema_vars[param.name] = create_global_var(
                    name=names.generate(f"{self._name}{param.name}_ema"),
                    shape=list(param.shape),
                    value=0.0,
                    dtype=param.dtype,
                    persistable=True,
                )
        self.apply_program = Program()
        with program_guard(self.apply_program):
            self._build_apply(self.apply_program.global_block())
        self.restore_program = Program()
        with program_guard(self.restore_program):
            block = self.restore_program.global_block()
            for param, tmp in self._params_tmps:
                assign(input=_clone(block, tmp), output=_clone(block, param))

    def _get_ema_decay(self) -> Any:
        with default_main_program()._lr_schedule_guard():
            rate = create_global_var([1], self._decay, "float32", persistable=True, name="scheduled_ema_decay_rate")
            if self._thres_steps is not None:
                threshold = (self._thres_steps + 1.0) / (self._thres_steps + 10.0)
                with Switch() as switch:
                    with switch.case(_below(threshold, self._decay)):
                        assign(threshold, rate)
                    with switch.default():
                        assign(np.array([self._decay], dtype=np.float32), rate)
                rate.dtype = threshold.dtype  # what the declaration ends up with in Fluid
        return rate

    def _build_apply(self, block: Any) -> None:
        # float32 whatever the main Program came to declare
        rate = block.create_var(name=self._decay_var.name, shape=[1], dtype="float32", persistable=True)
        steps = create_global_var([1], 0, "int64", persistable=True, name=self._step_counter_name)
        steps = cast(steps, "float32")
        power = append("elementwise_pow", "elementwise_pow", {"X": rate, "Y": steps}, {"axis": -1}, dtype=rate.dtype)
        for original, kept in self._params_tmps:
            param, tmp = _clone(block, original), _clone(block, kept)
            ema = _clone(block, self._ema_vars[original.name])
            assign(input=param, output=tmp)
            if self._decay_var.dtype != rate.dtype:
                names.generate("tmp")  # Fluid casts the rate here, and later names count on
            with Switch() as switch, switch.case(steps > 0.0):
                assign(input=ema / (1.0 - power), output=ema)
            assign(input=ema, output=param)

    def update(self) -> None:
        """Append the averaging to the main Program."""
        autoincreased_step_counter(counter_name=self._step_counter_name)
        for param, tmp in self._params_tmps:
            with param.block.program._optimized_guard([param, tmp]), name_scope("moving_average"):
                ema = self._ema_vars[param.name]
                assign(input=ema * self._decay_var + param * (1 - self._decay_var), output=ema)

    @contextmanager
    def apply(self, executor: Any, need_restore: bool = True) -> Iterator[None]:
        """Parameters hold their averages inside the ``with`` (and afterwards, unless `need_restore`)."""
        executor.run(self.apply_program)
        try:
            yield
        finally:
            if need_restore:
                self.restore(executor)

    def restore(self, executor: Any) -> None:
        """Give the parameters their own values back."""
        executor.run(self.restore_program)


def _below(value: Any, limit: float) -> Any:
    """value < limit; for an integer `value` the limit is converted to its type, as in Fluid."""
    block = default_main_program().current_block()
    bound = block.create_var(name=names.generate("tmp"), dtype=value.dtype, stop_gradient=True)
    attrs = {"shape": [1], "dtype": value.dtype, "value": float(limit), "force_cpu": False, "str_value": ""}
    block.append_op("fill_constant", {}, {"Out": bound}, attrs)
    return value < bound
