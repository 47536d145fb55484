"""decorate: an optimizer that trains in half precision."""

from __future__ import annotations

from typing import Any

from millstream.errors import InvalidProgramError, NotSupportedError
from millstream.fluid import layers
from millstream.fluid.contrib.mixed_precision.fp16_lists import AutoMixedPrecisionLists
from millstream.fluid.contrib.mixed_precision.fp16_utils import (
    HALF,
    all_finite,
    half_type,
    rewrite_program,
    update_loss_scaling,
    update_role_var_grad,
    zero_unless,
)
from millstream.fluid.optimizer.eager import refuse_eager
from millstream.ir import names
from millstream.ir.operator import ROLE_OPTIMIZE, Operator
from millstream.ir.program import default_main_program, default_startup_program, program_guard
from millstream.ir.types import VarType
from millstream.ir.variable import Variable

__all__ = ["OptimizerWithMixedPrecision", "decorate"]

Pairs = list[tuple[Any, Any]]
_LOSS_SCALING = 2**15


class OptimizerWithMixedPrecision:
    """An optimizer around `optimizer`; made by :func:`decorate`, whose arguments these are.

    Parameters, accumulators and what is saved stay float32; each step casts the parameters.
    """

    def __init__(
        self,
        optimizer: Any,
        amp_lists: AutoMixedPrecisionLists,
        init_loss_scaling: float,
        use_dynamic_loss_scaling: bool,
        incr_every_n_steps: int,
        decr_every_n_nan_or_inf: int,
        incr_ratio: float,
        decr_ratio: float,
        *,
        dtype: str = "float16",
    ) -> None:
        refuse_eager("mixed_precision.decorate")
        self._optimizer = optimizer
        self._amp_lists = amp_lists
        self._dtype = half_type(dtype)
        self._use_dynamic_loss_scaling = bool(use_dynamic_loss_scaling)
        _check_positive(init_loss_scaling=init_loss_scaling)
        if self._dtype is VarType.BF16 and init_loss_scaling == _LOSS_SCALING:
            init_loss_scaling, self._use_dynamic_loss_scaling = 1.0, False
        self._scales = self._dtype is VarType.FP16 or self._use_dynamic_loss_scaling or init_loss_scaling != 1.0
        if self._use_dynamic_loss_scaling:
            _check_positive(incr_every_n_steps=incr_every_n_steps, decr_every_n_nan_or_inf=decr_every_n_nan_or_inf)
            _check_ratios(incr_ratio, decr_ratio)
        self._init_loss_scaling = float(init_loss_scaling)
        self._every = (int(incr_every_n_steps), int(decr_every_n_nan_or_inf))
        self._incr_ratio, self._decr_ratio = float(incr_ratio), float(decr_ratio)
        self._param_grads: Pairs | None = None
        self._scaled_loss: Variable | None = None
        self._make_state()

    def _make_state(self) -> None:
        self._program = default_main_program()
        self._loss_scaling = self._state("loss_scaling", self._init_loss_scaling, "float32")
        if not self._use_dynamic_loss_scaling:
            return
        with self._program._role_guard(ROLE_OPTIMIZE, []):
            self._incr_every, self._decr_every = (layers.fill_constant([1], "int32", n) for n in self._every)
        self._num_good_steps = self._state("num_good_steps", 0, "int32")
        self._num_bad_steps = self._state("num_bad_steps", 0, "int32")

    def _state(self, name: str, value: float, dtype: str) -> Variable:
        return layers.create_global_var(name=names.generate(name), shape=[1], value=value, dtype=dtype, persistable=True)

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def get_loss_scaling(self) -> Variable:
        """The loss scaling of the present step, float32 [1]."""
        return self._loss_scaling

    def get_scaled_loss(self) -> Variable | None:
        """The loss times its scaling; None before :meth:`backward`."""
        return self._scaled_loss

    def backward(
        self,
        loss: Variable,
        startup_program: Any = None,
        parameter_list: Any = None,
        no_grad_set: Any = None,
        callbacks: Any = None,
    ) -> Pairs:
        """Rewrite the Program of `loss` and append gradients; returns (parameter, gradient without the scaling) pairs.

        Arguments are those of Optimizer.backward. Raises InvalidProgramError when
        the Program has gradients already, NotSupportedError for sparse gradients.
        """
        if not isinstance(loss, Variable):
            raise TypeError(f"mixed precision: the loss must be a Variable, received {type(loss).__name__}")
        program = loss.block.program
        startup = default_startup_program() if startup_program is None else startup_program
        rewrite_program(program, self._amp_lists, self._dtype)
        with program_guard(program, startup):
            if program is not self._program:  # decorated under another Program
                self._make_state()
            whole: Any = layers.cast(loss, "float32") if loss.dtype in HALF else loss
            self._scaled_loss = whole * self._loss_scaling if self._scales else whole
            found = self._optimizer.backward(self._scaled_loss, startup, parameter_list, no_grad_set, callbacks)
            if not found:
                raise InvalidProgramError(f"mixed precision: the loss {loss.name!r} depends on no trainable parameter")
            if self._scales:
                _refuse_sparse(found)
            update_role_var_grad(program, found)
            pairs = [] if self._scales else found
            for param, gradient in found if self._scales else ():
                with program._optimized_guard([param, gradient]):
                    pairs.append((param, gradient / self._loss_scaling))
        self._param_grads = pairs
        return pairs

    def apply_gradients(self, scaled_params_grads: Pairs) -> list[Operator]:
        """Append the check for overflow, if the scaling is dynamic, and the updates; returns the update operators.

        A step with an overflow updates with gradients of zero and adapts the scaling.
        """
        if self._use_dynamic_loss_scaling:
            gradients = [g for _, g in scaled_params_grads if g is not None]
            program = gradients[0].block.program
            with program._role_guard(ROLE_OPTIMIZE, []):
                finite = all_finite(gradients)
                update_loss_scaling(
                    finite,
                    self._loss_scaling,
                    self._num_good_steps,
                    self._num_bad_steps,
                    self._incr_every,
                    self._decr_every,
                    self._incr_ratio,
                    self._decr_ratio,
                )
                zero_unless(finite, gradients)
        return self._optimizer.apply_gradients(scaled_params_grads)

    def apply_optimize(self, loss: Variable, startup_program: Any, params_grads: Pairs) -> list[Operator]:
        """:meth:`apply_gradients` in the Program of `loss`."""
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(loss.block.program, startup):
            return self.apply_gradients(params_grads)

    def minimize(
        self, loss: Variable, startup_program: Any = None, parameter_list: Any = None, no_grad_set: Any = None
    ) -> tuple[list[Operator], Pairs]:
        """:meth:`backward` and :meth:`apply_gradients`; returns (update operators, (parameter, gradient) pairs)."""
        pairs = self.backward(loss, startup_program, parameter_list, no_grad_set)
        return self.apply_optimize(loss, startup_program, pairs), pairs


def _refuse_sparse(params_grads: Pairs) -> None:
    for param, gradient in params_grads:
        if gradient.type is VarType.SELECTED_ROWS:
            raise NotSupportedError(
                f"mixed precision: the gradient of {param.name!r} is sparse, and the loss scaling takes dense ones only "
                "(as in Fluid); use is_sparse=False in the embedding"
            )


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        whole = name != "init_loss_scaling"
        good = isinstance(value, int) if whole else isinstance(value, (int, float))
        if not good or isinstance(value, bool) or value <= 0:
            kind = "a positive int" if whole else "a positive number"
            raise ValueError(f"mixed_precision.decorate: {name} must be {kind}, received {value!r}")


def _check_ratios(incr_ratio: float, decr_ratio: float) -> None:
    if not incr_ratio >= 1.0:
        raise ValueError(f"mixed_precision.decorate: incr_ratio must be at least 1, received {incr_ratio!r}")
    if not 0.0 < decr_ratio <= 1.0:
        raise ValueError(f"mixed_precision.decorate: decr_ratio must lie in (0, 1], received {decr_ratio!r}")


def decorate(
    optimizer: Any,
    amp_lists: AutoMixedPrecisionLists | None = None,
    init_loss_scaling: float = _LOSS_SCALING,
    incr_every_n_steps: int = 1000,
    decr_every_n_nan_or_inf: int = 2,
    incr_ratio: float = 2.0,
    decr_ratio: float = 0.8,
    use_dynamic_loss_scaling: bool = True,
    *,
    dtype: str = "float16",
) -> OptimizerWithMixedPrecision:
    """`optimizer`, training in half precision with float32 parameters; call it under the Program that is trained.

    Args:
        amp_lists: which operators run in half precision; the defaults when None.
        init_loss_scaling: what the loss is multiplied with, so that small gradients are not lost.
        use_dynamic_loss_scaling: adapt it: times `incr_ratio` when more than `incr_every_n_steps` steps in a row had
            finite gradients, times `decr_ratio` (not below 1) when more than `decr_every_n_nan_or_inf` had others.
        dtype: (not in Fluid) float16, or bfloat16: float32's range with 8 bits of precision, fast on more CPUs. That range
            needs no loss scaling: `decorate(optimizer, dtype="bfloat16")` has none. An init_loss_scaling other than the
            default asks for it; 1.0 with use_dynamic_loss_scaling leaves out the steps whose gradients are not finite.
            More operators are lowered than in float16: layer_norm, softmax, sum, depthwise convolutions, …
    """
    lists = AutoMixedPrecisionLists() if amp_lists is None else amp_lists
    return OptimizerWithMixedPrecision(
        optimizer,
        lists,
        init_loss_scaling,
        use_dynamic_loss_scaling,
        incr_every_n_steps,
        decr_every_n_nan_or_inf,
        incr_ratio,
        decr_ratio,
        dtype=dtype,
    )
