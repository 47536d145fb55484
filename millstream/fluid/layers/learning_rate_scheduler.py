"""Learning-rate schedules: each returns a Variable of shape [1] that changes with the step counter.

The counter ``@LR_DECAY_COUNTER@`` grows by one each run of the Program and is shared by all schedules of a Program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.layers._build import append
from millstream.fluid.layers._check import check_type, is_variable
from millstream.fluid.layers._eager import eager_form, schedule
from millstream.fluid.layers.control_flow import Switch
from millstream.fluid.layers.nn.elementwise import elementwise_min
from millstream.fluid.layers.nn.host import autoincreased_step_counter
from millstream.fluid.layers.nn.reduce import reduce_sum
from millstream.fluid.layers.ops import sqrt, square
from millstream.fluid.layers.tensor import assign, cast, create_global_var, fill_constant
from millstream.ir.program import default_main_program

__all__ = [
    "append_LARS",
    "cosine_decay",
    "exponential_decay",
    "inverse_time_decay",
    "linear_lr_warmup",
    "natural_exp_decay",
    "noam_decay",
    "piecewise_decay",
    "polynomial_decay",
]

COUNTER = "@LR_DECAY_COUNTER@"


@contextmanager
def _schedule() -> Iterator[None]:
    """Operators appended inside belong to the schedule: they run, but are cut from test Programs."""
    with default_main_program()._lr_schedule_guard():
        yield


def _decay_step_counter(begin: int = 0) -> Any:
    """The number of runs so far as float32, starting with `begin`."""
    return cast(autoincreased_step_counter(counter_name=COUNTER, begin=begin, step=1), "float32")


def _unary(op_type: str, x: Any) -> Any:
    return append(op_type, op_type, {"X": x}, dtype=x.dtype)


@eager_form(schedule("NoamDecay"))
def noam_decay(d_model: Any, warmup_steps: Any, learning_rate: Any = 1.0) -> Any:
    """learning_rate * d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5), steps from 1 (Vaswani et al., 2017)."""
    check_type(d_model, "d_model", (int, float), "noam_decay") if not is_variable(d_model) else None
    check_type(warmup_steps, "warmup_steps", (int, float), "noam_decay") if not is_variable(warmup_steps) else None
    with _schedule():
        step = _decay_step_counter(1)
        rising = step**-0.5
        falling = (warmup_steps**-1.5) * step
        return learning_rate * (d_model**-0.5) * elementwise_min(rising, falling)


@eager_form(schedule("ExponentialDecay"))
def exponential_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Any:
    """learning_rate * decay_rate^(step / decay_steps); `staircase` rounds the exponent down."""
    with _schedule():
        passed = _decay_step_counter() / decay_steps
        if staircase:
            passed = _unary("floor", passed)
        return learning_rate * (decay_rate**passed)


@eager_form(schedule("NaturalExpDecay"))
def natural_exp_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Any:
    """learning_rate * exp(-decay_rate * step / decay_steps); `staircase` rounds step / decay_steps down."""
    with _schedule():
        passed = _decay_step_counter() / decay_steps
        if staircase:
            passed = _unary("floor", passed)
        return learning_rate * _unary("exp", -1 * decay_rate * passed)


@eager_form(schedule("InverseTimeDecay"))
def inverse_time_decay(learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False) -> Any:
    """learning_rate / (1 + decay_rate * step / decay_steps); `staircase` rounds step / decay_steps down."""
    with _schedule():
        passed = _decay_step_counter() / decay_steps
        if staircase:
            passed = _unary("floor", passed)
        return learning_rate / (1 + decay_rate * passed)


@eager_form(schedule("PolynomialDecay"))
def polynomial_decay(
    learning_rate: Any, decay_steps: int, end_learning_rate: float = 0.0001, power: float = 1.0, cycle: bool = False
) -> Any:
    """(learning_rate - end) * (1 - step / decay_steps)^power + end.

    After `decay_steps` the rate stays at `end_learning_rate`; with `cycle` it rises again and decay_steps grows to
    the next multiple.
    """
    with _schedule():
        step = _decay_step_counter()
        if cycle:
            rounds = _unary("ceil", step / decay_steps)
            zero = fill_constant([1], "float32", 0.0)
            one = fill_constant([1], "float32", 1.0)
            with Switch() as switch, switch.case(step == zero):
                assign(input=one, output=rounds)
            steps = decay_steps * rounds
            done = step / steps
        else:
            limit = fill_constant([1], "float32", float(decay_steps))
            done = elementwise_min(step, limit) / decay_steps
        return (learning_rate - end_learning_rate) * ((1 - done) ** power) + end_learning_rate


@eager_form(schedule("PiecewiseDecay"))
def piecewise_decay(boundaries: Any, values: Any) -> Any:
    """values[i] while step < boundaries[i], then the last value.

    Raises InvalidProgramError unless there is one value more than boundaries.
    """
    if len(values) - len(boundaries) != 1:
        raise InvalidProgramError(
            f"piecewise_decay: expected one value more than boundaries, received {len(boundaries)} boundaries and "
            f"{len(values)} values"
        )
    with _schedule():
        step = _decay_step_counter()
        rate = create_global_var([1], 0.0, "float32", persistable=True, name="learning_rate")
        with Switch() as switch:
            for boundary, value in zip(boundaries, values):
                bound = fill_constant([1], "float32", float(boundary), force_cpu=True)
                chosen = fill_constant([1], "float32", float(value))
                with switch.case(step < bound):
                    assign(chosen, rate)
            last = fill_constant([1], "float32", float(values[-1]))
            with switch.default():
                assign(last, rate)
        return rate


@eager_form(schedule("CosineDecay"))
def cosine_decay(learning_rate: Any, step_each_epoch: int, epochs: int) -> Any:
    """learning_rate / 2 * (cos(epoch * pi / epochs) + 1), epoch = floor(step / step_each_epoch)."""
    if not is_variable(learning_rate):
        check_type(learning_rate, "learning_rate", (float, int), "cosine_decay")
    with _schedule():
        epoch = _unary("floor", _decay_step_counter() / step_each_epoch)
        return learning_rate * 0.5 * (_unary("cos", epoch * math.pi / epochs) + 1)


@eager_form(schedule("LinearLrWarmup"))
def linear_lr_warmup(learning_rate: Any, warmup_steps: int, start_lr: float, end_lr: float) -> Any:
    """start_lr + (end_lr - start_lr) * step / warmup_steps for the first `warmup_steps`, then `learning_rate`.

    Args:
        learning_rate: a number, or the Variable of another schedule.
    """
    if not is_variable(learning_rate):
        learning_rate = float(learning_rate)
    with _schedule():
        rate = create_global_var([1], 0.0, "float32", persistable=True, name="learning_rate_warmup")
        step = _decay_step_counter()
        with Switch() as switch:
            with switch.case(step < warmup_steps):
                assign((end_lr - start_lr) * (step / float(warmup_steps)) + start_lr, rate)
            with switch.default():
                after = learning_rate
                if not is_variable(after):
                    after = fill_constant([1], "float32", after)
                assign(after, rate)
        return rate


def append_LARS(params_grads: Any, learning_rate: Any, weight_decay: float) -> list[Any]:
    """Layer-wise rates (You, Gitman, Ginsburg, 2017, arXiv:1708.03888) for (parameter, gradient) pairs; form of Fluid 1.1.

    The rate of each parameter becomes learning_rate * |p| / (|g| + weight_decay * |p|), times its ParamAttr's; returns
    these Variables of shape [1]. Call it before the optimizer's apply_gradients.
    """
    rates = []
    for param, gradient in params_grads:
        with default_main_program()._optimized_guard([param, gradient]):
            size, slope = sqrt(reduce_sum(square(param))), sqrt(reduce_sum(square(gradient)))
            rate: Any = learning_rate * size / (slope + (size if weight_decay == 1.0 else size * float(weight_decay)))
            factor = param.optimize_attr["learning_rate"]
            if is_variable(factor) or factor != 1.0:
                rate = rate * factor
        param.optimize_attr["learning_rate"] = rate
        rates.append(rate)
    return rates
