"""SGD, Momentum, LarsMomentum, Dpsgd."""

from __future__ import annotations

from typing import Any

from millstream.fluid.optimizer.optimizer import Optimizer, need
from millstream.fluid.regularizer import WeightDecayRegularizer


class SGDOptimizer(Optimizer):
    """param -= learning_rate * grad. A sparse gradient changes only its rows."""

    def __init__(
        self, learning_rate: Any, parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None,
        name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "sgd"

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        param, grad = param_and_grad
        return block.append_op(
            type=self.type,
            inputs={"Param": param, "Grad": grad, "LearningRate": self._create_param_lr(param_and_grad)},
            outputs={"ParamOut": param},
        )


class MomentumOptimizer(Optimizer):
    """velocity = momentum * velocity + grad; param -= learning_rate * velocity.

    Args:
        use_nesterov: param -= learning_rate * (grad + momentum * velocity).
    """

    _velocity_acc_str = "velocity"

    def __init__(
        self, learning_rate: Any, momentum: float, parameter_list: Any = None, use_nesterov: bool = False,
        regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        if isinstance(parameter_list, bool):  # (learning_rate, momentum, use_nesterov, regularization, name) of 1.1
            if isinstance(use_nesterov, WeightDecayRegularizer):
                regularization, name = use_nesterov, regularization if isinstance(regularization, str) else name
            parameter_list, use_nesterov = None, parameter_list
        need("Momentum", learning_rate=learning_rate, momentum=momentum)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "momentum"
        self._momentum = momentum
        self._use_nesterov = bool(use_nesterov)

    def _create_accumulators(self, block: Any, parameters: list[Any]) -> None:
        for p in parameters:
            self._add_accumulator(self._velocity_acc_str, p)

    def _momentum_op(self, block: Any, param_and_grad: Any, attrs: dict[str, Any]) -> Any:
        param, grad = param_and_grad
        velocity = self._get_accumulator(self._velocity_acc_str, param)
        inputs = {
            "Param": [param],
            "Grad": [grad],
            "Velocity": [velocity],
            "LearningRate": [self._create_param_lr(param_and_grad)],
        }
        outputs = {"ParamOut": [param], "VelocityOut": [velocity]}
        return block.append_op(type=self.type, inputs=inputs, outputs=outputs, attrs=attrs)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        return self._momentum_op(block, param_and_grad, {"mu": self._momentum, "use_nesterov": self._use_nesterov})


class LarsMomentumOptimizer(MomentumOptimizer):
    """Momentum with a learning rate of each layer's own (You, Gitman, Ginsburg, 2017, arXiv:1708.03888).

    Args:
        lars_coeff: trust coefficient.
        lars_weight_decay: decay inside the update.
    """

    def __init__(
        self, learning_rate: Any, momentum: float, lars_coeff: float = 0.001, lars_weight_decay: float = 0.0005,
        parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        need("LarsMomentum", learning_rate=learning_rate, momentum=momentum)
        super().__init__(learning_rate, momentum, parameter_list, False, regularization, grad_clip, name)
        self.type = "lars_momentum"
        self._lars_coeff = float(lars_coeff)
        self._lars_weight_decay = float(lars_weight_decay)

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        attrs = {"mu": self._momentum, "lars_coeff": self._lars_coeff, "lars_weight_decay": self._lars_weight_decay}
        return self._momentum_op(block, param_and_grad, attrs)


class DpsgdOptimizer(Optimizer):
    """Differentially private SGD (Abadi et al., 2016, arXiv:1607.00133): clipped gradients with noise.

    Args:
        clip: greatest norm of a gradient.
        batch_size: the noise is divided by it.
        sigma: deviation of the noise.
    """

    def __init__(
        self, learning_rate: Any = 0.001, clip: float = 0.9, batch_size: float = 0.999, sigma: float = 1e-08,
        parameter_list: Any = None,
    ) -> None:  # fmt: skip
        need("Dpsgd", learning_rate=learning_rate, clip=clip, batch_size=batch_size, sigma=sigma)
        super().__init__(learning_rate, parameter_list)
        self.type = "dpsgd"
        self._clip, self._batch_size, self._sigma = clip, batch_size, sigma
        self._seed: int | None = None  # for tests: the same noise every time

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        param, grad = param_and_grad
        attrs = {"clip": self._clip, "batch_size": self._batch_size, "sigma": self._sigma, "seed": self._seed or 0}
        return block.append_op(
            type=self.type,
            inputs={"Param": [param], "Grad": [grad], "LearningRate": [self._create_param_lr(param_and_grad)]},
            outputs={"ParamOut": [param]},
            attrs=attrs,
        )


SGD = SGDOptimizer
Momentum = MomentumOptimizer
LarsMomentum = LarsMomentumOptimizer
Dpsgd = DpsgdOptimizer
