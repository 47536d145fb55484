"""Adam, Adamax, Lamb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.optimizer.optimizer import Optimizer, need
from millstream.ir.variable import Variable


class AdamOptimizer(Optimizer):
    """Kingma and Ba, 2014 (arXiv:1412.6980).

    Args:
        beta1, beta2: decay of the first and second moments; floats, or Variables of shape [1].
        lazy_mode: with a sparse gradient, leave rows alone that it does not name.
    """

    _moment1_acc_str = "moment1"
    _moment2_acc_str = "moment2"
    _beta1_pow_acc_str = "beta1_pow_acc"
    _beta2_pow_acc_str = "beta2_pow_acc"

    def __init__(
        self, learning_rate: Any = 0.001, beta1: Any = 0.9, beta2: Any = 0.999, epsilon: float = 1e-08,
        parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None, name: str | None = None,
        lazy_mode: bool = False,
    ) -> None:  # fmt: skip
        need(type(self).__name__, learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "adam"
        self._beta1, self._beta2, self._epsilon, self._lazy_mode = beta1, beta2, epsilon, lazy_mode

    def _create_accumulators(self, block: Any, parameters: list[Any]) -> None:
        for p in parameters:
            self._add_accumulator(self._moment1_acc_str, p)
            self._add_accumulator(self._moment2_acc_str, p)
            for name, beta, default in (
                (self._beta1_pow_acc_str, self._beta1, 0.9),
                (self._beta2_pow_acc_str, self._beta2, 0.999),
            ):
                fill = default if (isinstance(beta, Variable) or hasattr(beta, "_ivar")) else beta
                self._add_accumulator(name, p, fill_value=fill, shape=[1], device="cpu")

    def _slots(self, param_and_grad: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        param, grad = param_and_grad
        inputs = {
            "Param": [param],
            "Grad": [grad],
            "LearningRate": [self._create_param_lr(param_and_grad)],
            "Moment1": [self._get_accumulator(self._moment1_acc_str, param)],
            "Moment2": [self._get_accumulator(self._moment2_acc_str, param)],
            "Beta1Pow": [self._get_accumulator(self._beta1_pow_acc_str, param)],
            "Beta2Pow": [self._get_accumulator(self._beta2_pow_acc_str, param)],
        }
        outputs = {"ParamOut": [param], "Moment1Out": inputs["Moment1"], "Moment2Out": inputs["Moment2"]}
        return inputs, outputs

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        inputs, outputs = self._slots(param_and_grad)
        outputs |= {"Beta1PowOut": inputs["Beta1Pow"], "Beta2PowOut": inputs["Beta2Pow"]}
        attrs: dict[str, Any] = {
            "epsilon": self._epsilon,
            "lazy_mode": self._lazy_mode,
            "min_row_size_to_use_multithread": 1000,
        }
        for name, beta, slot in (("beta1", self._beta1, "Beta1Tensor"), ("beta2", self._beta2, "Beta2Tensor")):
            if (isinstance(beta, Variable) or hasattr(beta, "_ivar")):
                inputs[slot] = [beta]
            else:
                attrs[name] = beta
        return block.append_op(type=self.type, inputs=inputs, outputs=outputs, attrs=attrs)


class AdamaxOptimizer(Optimizer):
    """Adam with the infinity norm (Kingma and Ba, 2014, section 7.1)."""

    _moment_acc_str = "moment"
    _inf_norm_acc_str = "inf_norm"
    _beta1_pow_acc_str = "beta1_pow_acc"

    def __init__(
        self, learning_rate: Any = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-08,
        parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        need("Adamax", learning_rate=learning_rate, beta1=beta1, beta2=beta2, epsilon=epsilon)
        super().__init__(learning_rate, parameter_list, regularization, grad_clip, name)
        self.type = "adamax"
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon

    def _create_accumulators(self, block: Any, parameters: list[Any]) -> None:
        for p in parameters:
            self._add_accumulator(self._moment_acc_str, p)
            self._add_accumulator(self._inf_norm_acc_str, p)
            self._add_accumulator(self._beta1_pow_acc_str, p, fill_value=self._beta1, shape=[1])

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        param, grad = param_and_grad
        moment = self._get_accumulator(self._moment_acc_str, param)
        inf_norm = self._get_accumulator(self._inf_norm_acc_str, param)
        inputs = {
            "Param": param,
            "Grad": grad,
            "LearningRate": self._create_param_lr(param_and_grad),
            "Moment": moment,
            "InfNorm": inf_norm,
            "Beta1Pow": self._get_accumulator(self._beta1_pow_acc_str, param),
        }
        outputs = {"ParamOut": param, "MomentOut": moment, "InfNormOut": inf_norm}
        attrs = {"beta1": self._beta1, "beta2": self._beta2, "epsilon": self._epsilon}
        return block.append_op(type=self.type, inputs=inputs, outputs=outputs, attrs=attrs)

    def _finish_update(self, block: Any, parameters_and_grads: Any) -> None:
        """The powers of beta1 advance after all updates."""
        for param, grad in parameters_and_grads:
            if grad is None or not param.trainable:
                continue
            with param.block.program._optimized_guard([param, grad]):
                power = self._get_accumulator(self._beta1_pow_acc_str, param)
                block.append_op("scale", {"X": power}, {"Out": power}, {"scale": self._beta1})


class LambOptimizer(AdamOptimizer):
    """Layer-wise adaptive rates for large batches (You et al., 2019, arXiv:1904.00962).

    Args:
        lamb_weight_decay: decay inside the update.
        exclude_from_weight_decay_fn: parameter -> whether it is left out of that decay.
    """

    def __init__(
        self, learning_rate: Any = 0.001, lamb_weight_decay: float = 0.01, beta1: float = 0.9, beta2: float = 0.999,
        epsilon: float = 1e-06, parameter_list: Any = None, regularization: Any = None, grad_clip: Any = None,
        exclude_from_weight_decay_fn: Callable[[Any], bool] | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        need("Lamb", lamb_weight_decay=lamb_weight_decay)
        if exclude_from_weight_decay_fn is not None and not callable(exclude_from_weight_decay_fn):
            raise TypeError(
                "Lamb: exclude_from_weight_decay_fn must be a function of the parameter, "
                f"received {type(exclude_from_weight_decay_fn).__name__}"
            )
        super().__init__(learning_rate, beta1, beta2, epsilon, parameter_list, regularization, grad_clip, name)
        self.type = "lamb"
        self._weight_decay = lamb_weight_decay
        self._exclude_from_weight_decay_fn = exclude_from_weight_decay_fn

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        excluded = self._exclude_from_weight_decay_fn
        inputs, outputs = self._slots(param_and_grad)
        attrs = {
            "beta1": self._beta1,
            "beta2": self._beta2,
            "epsilon": self._epsilon,
            "weight_decay": 0.0 if excluded is not None and excluded(param_and_grad[0]) else self._weight_decay,
        }
        return block.append_op(type=self.type, inputs=inputs, outputs=outputs, attrs=attrs)


Adam = AdamOptimizer
Adamax = AdamaxOptimizer
Lamb = LambOptimizer
