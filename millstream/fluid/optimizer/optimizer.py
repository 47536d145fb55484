"""Optimizer: what all optimizers share — backward, clipping, decay, learning rates, accumulators."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.autodiff.backward import append_backward
from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.clip import GradientClipBase, append_gradient_clip_ops, error_clip_callback
from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers.tensor import create_global_var
from millstream.fluid.optimizer.distributed_table import split_table
from millstream.fluid.optimizer.eager import EagerUpdates, check_eager
from millstream.fluid.regularizer import WeightDecayRegularizer, append_regularization_ops
from millstream.ir import mode, names
from millstream.ir.operator import Operator
from millstream.ir.program import (
    default_main_program,
    default_startup_program,
    name_scope,
    program_guard,
)
from millstream.ir.types import VarType
from millstream.ir.variable import Variable

Pairs = list[tuple[Any, Any]]


class Optimizer(EagerUpdates):
    """Base of all optimizers.

    Args:
        learning_rate: a float, or a Variable of shape [1] (a schedule).
        parameter_list: Parameters (or names) to train; all trainable ones of the loss's Program when None.
        regularization: decay of parameters that have no regulariser of their own.
        grad_clip: GradientClipByValue, GradientClipByNorm or GradientClipByGlobalNorm.
        name: prefix of the accumulators' names.

    Where Fluid 1.1 had `regularization` and `name` as positional arguments, `parameter_list` stands today; a
    regulariser or a name given there is taken for what it is.
    """

    type: str

    def __init__(
        self,
        learning_rate: Any,
        parameter_list: Any = None,
        regularization: Any = None,
        grad_clip: Any = None,
        name: str | None = None,
    ) -> None:
        if isinstance(parameter_list, WeightDecayRegularizer):  # (learning_rate, regularization, name) of 1.1
            if isinstance(regularization, str):
                regularization, name = None, regularization
            parameter_list, regularization = None, parameter_list
        elif isinstance(regularization, str) and name is None:
            regularization, name = None, regularization
        if mode.tracer() is not None:
            check_eager(type(self).__name__, learning_rate, parameter_list)
        self._check_arguments(learning_rate, parameter_list, regularization, grad_clip)
        self._parameter_list = list(parameter_list) if parameter_list is not None else None
        self._name = name
        self.regularization = regularization
        self._grad_clip = grad_clip
        self._learning_rate = learning_rate
        self._dtype: Any = None
        self._learning_rate_map: dict[int, tuple[Any, Any]] = {}  # id of a Program -> (Program, Variable)
        if isinstance(learning_rate, Variable):
            self._learning_rate_map[id(default_main_program())] = (default_main_program(), learning_rate)
        self._accumulators: defaultdict[str, dict[str, Any]] = defaultdict(dict)  # accumulator -> parameter -> Variable
        self._accumulators_holder: dict[str, Any] = {}
        self._opti_name_list: list[str] = []
        self.helper: Any = None

    def _check_arguments(self, learning_rate: Any, parameter_list: Any, regularization: Any, grad_clip: Any) -> None:
        who = type(self).__name__
        if mode.tracer() is not None:
            pass  # another kind of rate; check_eager() has seen it
        elif not isinstance(learning_rate, (float, Variable)):
            raise ArgumentError(
                f"{who}: learning_rate must be a float or a Variable, received {type(learning_rate).__name__}: "
                f"{learning_rate!r}"
            )
        if isinstance(parameter_list, (str, Variable)) or hasattr(parameter_list, "_ivar"):
            raise ArgumentError(f"{who}: parameter_list must be a list of Parameters or names, received {parameter_list!r}")
        if regularization is not None and not callable(regularization):
            raise ArgumentError(f"{who}: regularization must be L1Decay or L2Decay, received {regularization!r}")
        if grad_clip is not None and not isinstance(grad_clip, GradientClipBase):
            raise ArgumentError(
                f"{who}: grad_clip must be GradientClipByValue, GradientClipByNorm or GradientClipByGlobalNorm, "
                f"received {type(grad_clip).__name__}"
            )

    # ---- learning rates ------------------------------------------------------------------------
    def _create_global_learning_rate(self) -> None:
        program = default_main_program()
        if self._global_learning_rate(program) is not None:
            return
        if not isinstance(self._learning_rate, float):
            raise TypeError(
                f"{type(self).__name__}: the learning rate is a Variable of another Program; make the schedule inside "
                "program_guard of the Program that is trained"
            )
        var = create_global_var(
            name=names.generate("learning_rate"),
            shape=[1],
            value=float(self._learning_rate),
            dtype="float32" if self._dtype is None else self._dtype,
            persistable=True,
        )
        self._learning_rate_map[id(program)] = (program, var)

    def _global_learning_rate(self, program: Any = None) -> Any:
        """The learning-rate Variable of `program` (the main Program when None), or None."""
        if mode.tracer() is not None:
            return self._eager_rate
        program = default_main_program() if program is None else program
        return self._learning_rate_map.get(id(program), (None, None))[1]

    def _create_param_lr(self, param_and_grad: Any) -> Any:
        """The learning rate of one parameter: ParamAttr.learning_rate times the optimizer's."""
        factor = param_and_grad[0].optimize_attr["learning_rate"]
        if isinstance(factor, Variable):
            return factor
        rate = self._global_learning_rate()
        if factor == 1.0:
            return rate
        program = default_main_program()
        role = program._role_guard(program._op_role, [])
        with program._lr_schedule_guard(is_with_opt=True), role, name_scope("scale_with_param_lr"):
            block = program.current_block() if mode.tracer() is None else rate.block
            out = block.create_var(name=names.generate("tmp"), dtype=rate.dtype)
            attrs = {"scale": float(factor), "bias": 0.0, "bias_after_scale": True}
            block.append_op("scale", {"X": [rate]}, {"Out": [out]}, attrs)
        return out

    # ---- accumulators --------------------------------------------------------------------------
    def _create_accumulators(self, block: Any, parameters: list[Any]) -> None:
        """Make the accumulators of `parameters`; for subclasses."""

    def _finish_update(self, block: Any, parameters_and_grads: Pairs) -> None:
        """Append what runs once after all updates; for subclasses."""

    def _add_accumulator(
        self,
        name: str,
        param: Any,
        dtype: Any = None,
        fill_value: float = 0.0,
        shape: Any = None,
        type: Any = None,
        device: str | None = None,
    ) -> Any:
        """A persistable variable ``<param>_<name>_<n>`` that the startup Program fills with `fill_value`."""
        if self._name is not None:
            name = f"{self._name}_{name}"
        if param.name in self._accumulators[name]:
            raise InvalidProgramError(f"accumulator {name} of parameter {param.name} exists already")
        var = self.helper.create_global_variable(
            name=names.generate(f"{param.name}_{name}"),
            persistable=True,
            dtype=param.dtype if dtype is None else dtype,
            type=VarType.LOD_TENSOR if type is None else type,
            shape=list(param.shape) if shape is None else shape,
        )
        var.stop_gradient = False
        with _on_device(device):
            self.helper.set_variable_initializer(var, initializer=Constant(value=float(fill_value)))
        if mode.tracer() is not None:
            self._take_loaded(var)
        self._opti_name_list.append(var.name)
        self._accumulators[name][param.name] = var
        self._accumulators_holder[var.name] = var
        return var

    def _get_accumulator(self, name: str, param: Any) -> Any:
        """The accumulator `name` of `param`; InvalidProgramError when there is none."""
        if self._name is not None:
            name = f"{self._name}_{name}"
        found = self._accumulators.get(name, {}).get(param.name)
        if found is None:
            raise InvalidProgramError(f"{type(self).__name__} has no accumulator {name} for parameter {param.name}")
        return found

    def _set_accumulator(self, name: str, param: Any, value: Any) -> None:
        """Use the Variable `value` as accumulator `name` of `param`."""
        if self._name is not None:
            name = f"{self._name}_{name}"
        self._accumulators[name][param.name] = value

    def get_opti_var_name_list(self) -> list[str]:
        """Names of all accumulators made so far."""
        return self._opti_name_list

    # ---- steps of minimize -----------------------------------------------------------------------
    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Operator:
        raise NotImplementedError(f"{type(self).__name__} must define _append_optimize_op")

    def _create_optimization_pass(self, parameters_and_grads: Pairs) -> list[Operator]:
        """Append accumulators, learning rate and one update for each pair; returns the appended operators."""
        program = default_main_program()
        block = program.current_block()
        start = len(block.ops)
        self.helper = LayerHelper(type(self).__name__)
        self._create_accumulators(program.global_block(), [p for p, _ in parameters_and_grads if p.trainable])
        self._create_global_learning_rate()
        for pair in parameters_and_grads:
            if pair[1] is None or not pair[0].trainable:
                continue
            with program._optimized_guard(pair), name_scope("optimizer"):
                self._append_optimize_op(block, pair)
        self._finish_update(block, parameters_and_grads)
        return block.ops[start:]

    def backward(
        self,
        loss: Any,
        startup_program: Any = None,
        parameter_list: Any = None,
        no_grad_set: Any = None,
        callbacks: Any = None,
    ) -> Pairs:
        """Append the gradient operators; returns (parameter, gradient) pairs. See append_backward.

        Variables' `error_clip` is applied.
        """
        if mode.tracer() is not None:
            return self._eager_pairs(parameter_list, no_grad_set)
        if not isinstance(loss, Variable):
            raise ArgumentError(f"{type(self).__name__}: the loss must be a Variable, received {type(loss).__name__}")
        self._dtype = loss.dtype
        calls = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(loss.block.program, startup):
            return self._gradients(loss, parameter_list or self._parameter_list, no_grad_set, [*calls, error_clip_callback])

    def _gradients(self, loss: Any, parameter_list: Any, no_grad_set: Any, callbacks: list[Any]) -> Pairs:
        return append_backward(loss, parameter_list, no_grad_set, callbacks)

    def apply_gradients(self, params_grads: Pairs) -> list[Operator]:
        """Append clipping, decay and updates for (parameter, gradient) pairs; returns the update operators."""
        if mode.tracer() is not None:
            return self._eager_apply(params_grads)
        pairs = sorted(params_grads, key=lambda pair: pair[0].name)
        pairs, table = split_table(default_main_program(), pairs)
        first = [] if table is None else [self._update_table(table)]
        pairs = self._grad_clip(pairs) if self._grad_clip is not None else append_gradient_clip_ops(pairs)
        return self._create_optimization_pass(append_regularization_ops(pairs, self.regularization)) + first

    def _update_table(self, pair: Any) -> Operator:
        """Plain SGD for a distributed table: neither clipped nor regularised, without accumulators."""
        program = default_main_program()
        self._create_global_learning_rate()
        with program._optimized_guard(pair), name_scope("optimizer"):
            rate = self._create_param_lr(pair)
            inputs = {"Param": [pair[0]], "Grad": [pair[1]], "LearningRate": [rate]}
            return program.global_block().append_op(type="sgd", inputs=inputs, outputs={"ParamOut": [pair[0]]})

    def apply_optimize(self, loss: Any, startup_program: Any, params_grads: Pairs) -> list[Operator]:
        """:meth:`apply_gradients` in the Program of `loss`."""
        if mode.tracer() is not None:
            return self._eager_apply(params_grads)
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(loss.block.program, startup):
            return self.apply_gradients(params_grads)

    def minimize(
        self,
        loss: Any,
        startup_program: Any = None,
        parameter_list: Any = None,
        no_grad_set: Any = None,
        *,
        grad_clip: Any = None,
    ) -> tuple[list[Operator], Pairs]:
        """Append gradients and updates that make `loss` smaller.

        Args:
            loss: a Variable of shape [1].
            startup_program: where accumulators are initialised; the default startup Program when None.
            parameter_list: Parameters or names to train; the constructor's when None.
            no_grad_set: Variables or names through which no gradient flows.
            grad_clip: (form of 1.6 and 1.7) overrides the constructor's for this call.

        Returns:
            (update operators, (parameter, gradient) pairs in the order of the parameters).
        """
        if grad_clip is not None:
            self._check_arguments(self._learning_rate, None, None, grad_clip)
            self._grad_clip = grad_clip
        if mode.tracer() is not None:
            return self._eager_minimize(loss, parameter_list, no_grad_set)
        params_grads = self.backward(loss, startup_program, parameter_list, no_grad_set)
        return self.apply_optimize(loss, startup_program, params_grads), params_grads


@contextmanager
def _on_device(device: str | None) -> Iterator[None]:
    """Initialisers made inside say that their variable lives on `device`."""
    startup = default_startup_program()
    old = startup._device
    startup._device = device if device is not None else old
    try:
        yield
    finally:
        startup._device = old


def need(who: str, **values: Any) -> None:
    """ValueError when a required number is None."""
    for name, value in values.items():
        if value is None:
            raise InvalidProgramError(f"{who}: {name} must be a number, received None")
