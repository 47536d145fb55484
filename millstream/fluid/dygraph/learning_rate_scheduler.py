"""``fluid.dygraph.learning_rate_scheduler``: learning rates that change with the steps or epochs of eager training.

A schedule that advances by steps does so each time an optimizer asks it for the rate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from millstream.errors import StateMismatchError
from millstream.fluid.layers._check import check_type, refuse, refuse_type
from millstream.ir import names
from millstream.ir.types import to_var_type
from millstream.ops._values import TORCH_DTYPE
from millstream.runtime.eager import VarBase

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LambdaDecay",
    "LinearLrWarmup",
    "MultiStepDecay",
    "NaturalExpDecay",
    "NoamDecay",
    "PiecewiseDecay",
    "PolynomialDecay",
    "ReduceLROnPlateau",
    "StepDecay",
]


def _number(value: Any) -> float:
    """A rate that may be a variable as a float."""
    return float(value)


class LearningRateDecay:
    """Base of all schedules; subclasses define step().

    Args:
        begin: the first step number; step: what is added to it at every call.
        dtype: of the learning-rate variable.
    """

    _keys: tuple[str, ...] = ("step_num",)

    def __init__(self, begin: int = 0, step: int = 1, dtype: Any = "float32") -> None:
        self.step_num = begin
        self.step_size = step
        self.dtype = dtype

    def __call__(self) -> VarBase:
        """The rate of this step as a variable of shape [1]; the step number grows."""
        rate = self.step()
        self.step_num += self.step_size
        return self.create_lr_var(rate)

    def create_lr_var(self, lr: Any) -> VarBase:
        """A variable of shape [1] that holds `lr`."""
        if isinstance(lr, VarBase):
            return lr
        value = torch.full((1,), float(lr), dtype=TORCH_DTYPE[to_var_type(self.dtype)])
        return VarBase(value, names.generate("learning_rate"))

    def step(self) -> Any:
        """The rate at `step_num`."""
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def state_dict(self) -> dict[str, Any]:
        """What goes on in another process: plain numbers by name."""
        found = {}
        for key in self._keys:
            value = getattr(self, key)
            found[key] = _number(value) if isinstance(value, VarBase) else value
        return found

    def set_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`. Raises StateMismatchError: an entry is missing."""
        for key in self._keys:
            if key not in state_dict:
                raise StateMismatchError(
                    f"{type(self).__name__}.set_dict: {key!r} is not in the state, "
                    f"which has {', '.join(state_dict) or 'nothing'}"
                )
            setattr(self, key, state_dict[key])
        if len(state_dict) > len(self._keys):
            extra = sorted(set(state_dict) - set(self._keys))
            warnings.warn(f"{type(self).__name__}.set_dict: unused entries {', '.join(map(str, extra))}", stacklevel=2)

    set_state_dict = set_dict


class PiecewiseDecay(LearningRateDecay):
    """values[i] while step_num < boundaries[i], then the last of `values`."""

    def __init__(
        self, boundaries: Sequence[int], values: Sequence[float], begin: int, step: int = 1, dtype: Any = "float32"
    ) -> None:
        super().__init__(begin, step, dtype)
        if len(values) != len(boundaries) + 1:
            refuse("PiecewiseDecay", f"needs one value more than boundaries, received {len(values)} and {len(boundaries)}")
        self.boundaries, self.values = boundaries, values

    def step(self) -> Any:
        for boundary, value in zip(self.boundaries, self.values):
            if self.step_num < boundary:
                return value
        return self.values[-1]


class _Decay(LearningRateDecay):
    """What the decays by learning_rate, decay_steps, decay_rate share."""

    def __init__(
        self, learning_rate: Any, decay_steps: int, decay_rate: float, staircase: bool = False, begin: int = 0,
        step: int = 1, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(begin, step, dtype)
        self.learning_rate, self.decay_steps, self.decay_rate, self.staircase = (
            learning_rate, decay_steps, decay_rate, staircase,
        )  # fmt: skip

    def _passed(self) -> float:
        passed = self.step_num / self.decay_steps
        return math.floor(passed) if self.staircase else passed


class NaturalExpDecay(_Decay):
    """learning_rate * exp(-decay_rate * step_num / decay_steps); `staircase` rounds step_num / decay_steps down."""

    def step(self) -> Any:
        return _number(self.learning_rate) * math.exp(-self.decay_rate * self._passed())


class ExponentialDecay(_Decay):
    """learning_rate * decay_rate ^ (step_num / decay_steps); `staircase` rounds the exponent down."""

    def step(self) -> Any:
        return _number(self.learning_rate) * self.decay_rate ** self._passed()


class InverseTimeDecay(_Decay):
    """learning_rate / (1 + decay_rate * step_num / decay_steps); `staircase` rounds step_num / decay_steps down."""

    def step(self) -> Any:
        return _number(self.learning_rate) / (1 + self.decay_rate * self._passed())


class PolynomialDecay(LearningRateDecay):
    """From learning_rate to end_learning_rate in decay_steps, as (1 - step_num / decay_steps) ^ power.

    Args:
        cycle: start again, each time for one more multiple of decay_steps; else stay at the end.
    """

    def __init__(
        self, learning_rate: Any, decay_steps: int, end_learning_rate: float = 0.0001, power: float = 1.0,
        cycle: bool = False, begin: int = 0, step: int = 1, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(begin, step, dtype)
        self.learning_rate, self.decay_steps, self.end_learning_rate = learning_rate, decay_steps, end_learning_rate
        self.power, self.cycle = power, cycle

    def step(self) -> Any:
        number, steps = self.step_num, float(self.decay_steps)
        if self.cycle:
            steps *= max(math.ceil(number / steps), 1)
        else:
            number = min(number, self.decay_steps)
        start = _number(self.learning_rate)
        return (start - self.end_learning_rate) * (1 - number / steps) ** self.power + self.end_learning_rate


class CosineDecay(LearningRateDecay):
    """learning_rate / 2 * (cos(epoch * pi / epochs) + 1), epoch = floor(step_num / step_each_epoch)."""

    def __init__(
        self, learning_rate: Any, step_each_epoch: int, epochs: int, begin: int = 0, step: int = 1, dtype: Any = "float32"
    ) -> None:
        super().__init__(begin, step, dtype)
        self.learning_rate, self.step_each_epoch, self.epochs = learning_rate, step_each_epoch, epochs

    def step(self) -> Any:
        epoch = math.floor(self.step_num / self.step_each_epoch)
        return _number(self.learning_rate) / 2 * (math.cos(epoch * math.pi / self.epochs) + 1)


class NoamDecay(LearningRateDecay):
    """learning_rate * d_model^-0.5 * min(step_num^-0.5, step_num * warmup_steps^-1.5) (Vaswani et al., 2017)."""

    def __init__(
        self, d_model: Any, warmup_steps: Any, begin: int = 1, step: int = 1, dtype: Any = "float32",
        learning_rate: Any = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(begin, step, dtype)
        self.learning_rate, self.d_model, self.warmup_steps = learning_rate, d_model, warmup_steps

    def step(self) -> Any:
        rising, falling = self.warmup_steps**-1.5 * self.step_num, math.inf
        if self.step_num > 0:
            falling = self.step_num**-0.5
        return _number(self.learning_rate) * self.d_model**-0.5 * min(falling, rising)


class LinearLrWarmup(LearningRateDecay):
    """Growing for the first warmup_steps steps, then `learning_rate`: a number or another schedule.

    As Fluid 1.8.5 computes it in dygraph mode: (end_lr - start_lr) / warmup_steps * step_num, without adding start_lr.
    """

    def __init__(
        self, learning_rate: Any, warmup_steps: int, start_lr: float, end_lr: float, begin: int = 1, step: int = 1,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(begin, step, dtype)
        if not isinstance(learning_rate, (int, float, LearningRateDecay)):
            refuse_type(
                "LinearLrWarmup",
                "'learning_rate' must be a number or a schedule, "
                f"received {type(learning_rate).__name__}: {learning_rate!r}",
            )
        if not end_lr > start_lr:
            refuse("LinearLrWarmup", f"'end_lr' must be greater than 'start_lr', received {end_lr} and {start_lr}")
        self.learning_rate, self.warmup_steps, self.start_lr = learning_rate, warmup_steps, start_lr
        self.lr_ratio_before_warmup = (float(end_lr) - float(start_lr)) / float(warmup_steps)

    def step(self) -> Any:
        after: Any = self.learning_rate
        if isinstance(after, LearningRateDecay):  # it advances during the warm-up, too
            after = after()
        if self.step_num < self.warmup_steps:
            return self.lr_ratio_before_warmup * self.step_num
        return after


class ReduceLROnPlateau(LearningRateDecay):
    """Multiply the rate by decay_rate when the loss has not improved for more than `patience` calls of step(loss).

    Args:
        mode: "min": smaller is better; "max": greater.
        verbose: print each change.
        threshold, threshold_mode: how much better counts: "rel"ative to the best loss, or "abs"olute.
        cooldown: calls after a change during which nothing is counted.
        min_lr: the rate goes no lower; eps: changes not greater than this are left out.
    """

    _keys = ("cooldown_counter", "best_loss", "num_bad_epochs", "epoch_num", "learning_rate")

    def __init__(
        self, learning_rate: Any, mode: str = "min", decay_rate: float = 0.1, patience: int = 10, verbose: bool = False,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0, min_lr: float = 0, eps: float = 1e-8,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(dtype=dtype)
        who = type(self).__name__
        if not isinstance(mode, str) or mode.lower() not in ("min", "max"):
            refuse(who, f"'mode' must be 'min' or 'max', received {mode!r}")
        if not isinstance(threshold_mode, str) or threshold_mode.lower() not in ("rel", "abs"):
            refuse(who, f"'threshold_mode' must be 'rel' or 'abs', received {threshold_mode!r}")
        if decay_rate >= 1.0:
            refuse(who, f"'decay_rate' must be smaller than 1, received {decay_rate}")
        if not isinstance(learning_rate, (int, float)):
            refuse_type(who, f"'learning_rate' must be a number, received {type(learning_rate).__name__}")
        self.mode, self.threshold_mode = mode.lower(), threshold_mode.lower()
        self.decay_rate, self.patience, self.verbose, self.threshold = decay_rate, patience, verbose, threshold
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.learning_rate: Any = float(learning_rate)
        self.cooldown_counter = 0
        self.best_loss: float | None = None
        self.num_bad_epochs = 0
        self.epoch_num = 0

    def __call__(self) -> VarBase:
        """The present rate."""
        return self.create_lr_var(self.learning_rate)

    def step(self, loss: Any) -> None:  # type: ignore[override]
        """Take note of `loss`, a variable of shape [1], once an epoch."""
        if not isinstance(loss, VarBase) or list(loss.shape) != [1]:
            refuse_type(
                type(self).__name__,
                "step() takes a loss variable of shape [1], "
                f"received {loss.describe() if isinstance(loss, VarBase) else loss!r}",
            )
        value = float(loss)
        self.epoch_num += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            return
        if self.best_loss is None or self._is_better(value, float(self.best_loss)):
            self.best_loss, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            old = _number(self.learning_rate)
            new = max(old * self.decay_rate, self.min_lr)
            if old - new > self.eps:
                self.learning_rate = new
                if self.verbose:
                    print(f"Epoch {self.epoch_num}: reducing learning rate from {old} to {new}.")

    def _is_better(self, value: float, best: float) -> bool:
        margin = best * self.threshold if self.threshold_mode == "rel" else self.threshold
        return value < best - margin if self.mode == "min" else value > best + margin


class _EpochDecay(LearningRateDecay):
    """Base of schedules that advance when epoch() is called."""

    _keys = ("epoch_num", "learning_rate")

    def __init__(self, learning_rate: Any) -> None:
        if not isinstance(learning_rate, (int, float)):
            refuse_type(
                type(self).__name__, f"'learning_rate' must be a number, received {type(learning_rate).__name__}"
            )
        if learning_rate < 0:
            refuse(type(self).__name__, f"'learning_rate' must not be negative, received {learning_rate}")
        self.base_lr = float(learning_rate)
        self.epoch_num = 0
        self.dtype = "float32"
        self.learning_rate = self.get_lr()

    def __call__(self) -> VarBase:
        """The present epoch's rate."""
        self.learning_rate = self.get_lr()
        return self.create_lr_var(self.learning_rate)

    def epoch(self, epoch: int | None = None) -> None:
        """Go to the next epoch, or to number `epoch`."""
        self.epoch_num = self.epoch_num + 1 if epoch is None else int(epoch)
        self.learning_rate = self.get_lr()

    def step(self) -> Any:
        return self.get_lr()

    def get_lr(self) -> float:
        """The rate of epoch `epoch_num`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")


class StepDecay(_EpochDecay):
    """learning_rate * decay_rate ^ floor(epoch / step_size)."""

    def __init__(self, learning_rate: Any, step_size: int, decay_rate: float = 0.1) -> None:
        check_type(step_size, "step_size", int, "StepDecay")
        if decay_rate >= 1.0:
            refuse("StepDecay", f"'decay_rate' must be smaller than 1, received {decay_rate}")
        self.step_size, self.decay_rate = step_size, decay_rate
        super().__init__(learning_rate)

    def get_lr(self) -> float:
        return self.base_lr * self.decay_rate ** (self.epoch_num // self.step_size)


class MultiStepDecay(_EpochDecay):
    """learning_rate * decay_rate ^ (how many of `milestones` epoch has reached)."""

    def __init__(self, learning_rate: Any, milestones: Sequence[int], decay_rate: float = 0.1) -> None:
        check_type(milestones, "milestones", (list, tuple), "MultiStepDecay")
        if any(a >= b for a, b in pairwise(milestones)):
            refuse("MultiStepDecay", f"'milestones' must increase, received {milestones!r}")
        if decay_rate >= 1.0:
            refuse("MultiStepDecay", f"'decay_rate' must be smaller than 1, received {decay_rate}")
        self.milestones, self.decay_rate = milestones, decay_rate
        super().__init__(learning_rate)

    def get_lr(self) -> float:
        return self.base_lr * self.decay_rate ** sum(self.epoch_num >= m for m in self.milestones)


class LambdaDecay(_EpochDecay):
    """learning_rate * lr_lambda(epoch)."""

    def __init__(self, learning_rate: Any, lr_lambda: Callable[[int], float]) -> None:
        if not callable(lr_lambda):
            refuse_type("LambdaDecay", f"'lr_lambda' must be a function of the epoch, received {type(lr_lambda).__name__}")
        self.lr_lambda = lr_lambda
        super().__init__(learning_rate)

    def get_lr(self) -> float:
        return self.base_lr * self.lr_lambda(self.epoch_num)
