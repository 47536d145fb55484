"""Weight decay apart from the gradient (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.fluid.layers._check import is_variable
from millstream.fluid.layers.nn.elementwise import elementwise_sub
from millstream.fluid.layers.tensor import assign
from millstream.fluid.optimizer.optimizer import Optimizer

__all__ = ["DecoupledWeightDecay", "extend_with_decoupled_weight_decay"]


class DecoupledWeightDecay:
    """To be put before an optimizer class: each parameter p becomes p - coeff * p before its update.

    Args:
        coeff: a number or a Variable of shape [1].
        apply_decay_param_fun: name -> whether to decay; None: all parameters.
        **kwargs: for the optimizer.
    """

    def __init__(self, coeff: Any = 0.0, apply_decay_param_fun: Callable[[str], bool] | None = None, **kwargs: Any) -> None:
        if not isinstance(coeff, (int, float)) and not is_variable(coeff):
            raise TypeError(f"the decay must be a number or a Variable, received {type(coeff).__name__}")
        self._params_name: set[str] = set()
        self._apply_decay_param_fun = apply_decay_param_fun
        self._coeff = coeff
        super().__init__(**kwargs)

    def _decays(self, params_grads: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        if isinstance(self._coeff, (int, float)) and self._coeff == 0.0:
            return []
        wanted = self._apply_decay_param_fun
        chosen = [param for param, grad in params_grads if grad is not None and (wanted is None or wanted(param.name))]
        scaled = []
        for param in chosen:
            if param.name in self._params_name:
                raise ValueError(f"parameter {param.name!r} is decayed already")
            with param.block.program._optimized_guard([param]):
                scaled.append((param, param * self._coeff))
            self._params_name.add(param.name)
        return scaled

    def minimize(self, loss: Any, startup_program: Any = None, parameter_list: Any = None, no_grad_set: Any = None) -> Any:
        """As the optimizer's, with the decay between the gradients and the updates."""
        base: Any = self
        params_grads = base.backward(
            loss, startup_program=startup_program, parameter_list=parameter_list, no_grad_set=no_grad_set
        )
        for param, scaled in self._decays(params_grads):
            with param.block.program._optimized_guard([param]):
                assign(input=elementwise_sub(x=param, y=scaled), output=param)
        updates = base.apply_optimize(loss=loss, params_grads=params_grads, startup_program=startup_program)
        return updates, params_grads

    def __str__(self) -> str:
        return f"{super().__str__()} with decoupled weight decay {self._coeff}"


def extend_with_decoupled_weight_decay(base_optimizer: type) -> type:
    """A subclass of an optimizer class that takes ``weight_decay`` first, then the class's own arguments by name.

    Raises:
        TypeError: not a subclass of Optimizer.

    Use::

        AdamW = fluid.contrib.extend_with_decoupled_weight_decay(fluid.optimizer.Adam)
        AdamW(weight_decay=0.01, learning_rate=1e-3).minimize(loss)
    """
    if not isinstance(base_optimizer, type) or not issubclass(base_optimizer, Optimizer):
        raise TypeError(f"extend_with_decoupled_weight_decay: an optimizer class is needed, received {base_optimizer!r}")

    class OptimizerWithDecoupledWeightDecay(DecoupledWeightDecay, base_optimizer):  # type: ignore[misc, valid-type]
        """The optimizer with decoupled weight decay."""

        def __init__(
            self, weight_decay: Any, apply_decay_param_fun: Callable[[str], bool] | None = None, **kwargs: Any
        ) -> None:
            super().__init__(weight_decay, apply_decay_param_fun, **kwargs)

    return OptimizerWithDecoupledWeightDecay
