"""Adagrad, DecayedAdagrad, Adadelta, RMSProp, Ftrl."""

from __future__ import annotations

import warnings
from typing import Any

from millstream.fluid.optimizer.optimizer import Optimizer, need


class _WithAccumulators(Optimizer):
    """Optimizers whose update is one operator over the parameter, its gradient and accumulators of its shape.

    `_slots`: accumulator -> (input slot, output slot).
    """

    _slots: dict[str, tuple[str, str]] = {}
    _takes_rate = True
    _fill = 0.0

    def _create_accumulators(self, block: Any, parameters: list[Any]) -> None:
        for p in parameters:
            for name in self._slots:
                self._add_accumulator(name, p, fill_value=self._fill)

    def _attrs(self) -> dict[str, Any]:
        return {}

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        param, grad = param_and_grad
        inputs, outputs = {"Param": param, "Grad": grad}, {"ParamOut": param}
        for name, (source, target) in self._slots.items():
            inputs[source] = outputs[target] = self._get_accumulator(name, param)
        if self._takes_rate:
            inputs["LearningRate"] = self._create_param_lr(param_and_grad)
        return block.append_op(type=self.type, inputs=inputs, outputs=outputs, attrs=self._attrs())


class AdagradOptimizer(_WithAccumulators):
    """moment += grad^2; param -= learning_rate * grad / (sqrt(moment) + epsilon) (Duchi, Hazan, Singer, 2011).

    Args:
        initial_accumulator_value: what `moment` starts with.
    """

    _slots = {"moment": ("Moment", "MomentOut")}

    def __init__(
        self, learning_rate: Any, epsilon: float = 1e-06, parameter_list: Any = None, regularization: Any = None,
        grad_clip: Any = None, name: str | None = None, initial_accumulator_value: float = 0.0,
    ) -> None:  # fmt: skip
        need("Adagrad", learning_rate=learning_rate, epsilon=epsilon)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "adagrad"
        self._epsilon = epsilon
        self.initial_accumulator_value = self._fill = initial_accumulator_value

    def _attrs(self) -> dict[str, Any]:
        return {"epsilon": self._epsilon}


class DecayedAdagradOptimizer(_WithAccumulators):
    """moment = decay * moment + (1 - decay) * grad^2; param -= learning_rate * grad / (sqrt(moment) + epsilon)."""

    _slots = {"moment": ("Moment", "MomentOut")}

    def __init__(
        self, learning_rate: Any, decay: float = 0.95, epsilon: float = 1e-06, parameter_list: Any = None,
        regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        need("DecayedAdagrad", learning_rate=learning_rate, decay=decay, epsilon=epsilon)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "decayed_adagrad"
        self._decay, self._epsilon = decay, epsilon

    def _attrs(self) -> dict[str, Any]:
        return {"epsilon": self._epsilon, "decay": self._decay}


class AdadeltaOptimizer(_WithAccumulators):
    """Zeiler, 2012 (arXiv:1212.5701). As in Fluid the learning rate is not used by the update."""

    _avg_squared_grad_acc_str = "_avg_squared_grad"
    _avg_squared_update_acc_str = "_avg_squared_update"
    _slots = {
        "_avg_squared_grad": ("AvgSquaredGrad", "AvgSquaredGradOut"),
        "_avg_squared_update": ("AvgSquaredUpdate", "AvgSquaredUpdateOut"),
    }
    _takes_rate = False

    def __init__(
        self, learning_rate: Any, epsilon: float = 1e-06, rho: float = 0.95, parameter_list: Any = None,
        regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        need("Adadelta", learning_rate=learning_rate, epsilon=epsilon, rho=rho)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "adadelta"
        self._epsilon, self._rho = epsilon, rho

    def _attrs(self) -> dict[str, Any]:
        return {"epsilon": self._epsilon, "rho": self._rho}


class RMSPropOptimizer(_WithAccumulators):
    """Tieleman and Hinton, 2012.

    Args:
        rho: decay of the mean square.
        momentum: of the update.
        centered: divide by the deviation instead of the root mean square (Graves, 2013, arXiv:1308.0850).
    """

    _slots = {
        "momentum": ("Moment", "MomentOut"),
        "mean_square": ("MeanSquare", "MeanSquareOut"),
        "mean_grad": ("MeanGrad", "MeanGradOut"),
    }

    def __init__(
        self, learning_rate: Any, rho: float = 0.95, epsilon: float = 1e-06, momentum: float = 0.0,
        centered: bool = False, parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        need("RMSProp", rho=rho, epsilon=epsilon, momentum=momentum)
        self.type = "rmsprop"
        self._rho, self._epsilon, self._momentum, self._centered = rho, epsilon, momentum, centered

    def _attrs(self) -> dict[str, Any]:
        return {
            "epsilon": self._epsilon,
            "decay": self._rho,
            "momentum": self._momentum,
            "centered": bool(self._centered),
        }


class FtrlOptimizer(_WithAccumulators):
    """Follow the regularised leader (McMahan et al., 2013).

    Args:
        l1: strength of the absolute penalty. As in Fluid 1.8.5 it is the strength of the quadratic one, too:
        l2: is not used (a warning says so where it differs from `l1`).
        lr_power: how the learning rate falls with the accumulated squares.
    """

    _slots = {
        "squared": ("SquaredAccumulator", "SquaredAccumOut"),
        "linear": ("LinearAccumulator", "LinearAccumOut"),
    }

    def __init__(
        self, learning_rate: Any, l1: float = 0.0, l2: float = 0.0, lr_power: float = -0.5, parameter_list: Any = None,
        regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        need("Ftrl", l1=l1, l2=l2, lr_power=lr_power)
        self.type = "ftrl"
        self._l1, self._l2, self._lr_power = l1, l2, lr_power
        if l1 != l2:
            warnings.warn(f"Ftrl: l2={l2} is not used, l1={l1} stands for both as in Fluid 1.8.5", stacklevel=2)

    def _attrs(self) -> dict[str, Any]:
        return {"l1": self._l1, "l2": self._l1, "lr_power": self._lr_power}


Adagrad = AdagradOptimizer
DecayedAdagrad = DecayedAdagradOptimizer
Adadelta = AdadeltaOptimizer
RMSProp = RMSPropOptimizer
Ftrl = FtrlOptimizer
