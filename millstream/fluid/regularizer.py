"""Weight decay: regularisers add their gradient to a parameter's gradient before the optimizer sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.ir import names
from millstream.ir.program import name_scope
from millstream.ir.types import VarType

__all__ = ["L1Decay", "L1DecayRegularizer", "L2Decay", "L2DecayRegularizer", "append_regularization_ops"]

NEW_GRAD = "@NEWGRAD@"  # a sparse gradient and a dense decay add up to a dense gradient of this name


class WeightDecayRegularizer:
    """Base of regularisers: called with (param, grad, block), returns the decay to add to the gradient."""

    def __init__(self) -> None:
        self._regularization_coeff = 0.0

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{type(self).__name__.removesuffix('Regularizer')}, regularization_coeff={self._regularization_coeff:f}"


class _Decay(WeightDecayRegularizer):
    def __init__(self, regularization_coeff: float = 0.0) -> None:
        if regularization_coeff is None:
            raise ValueError(f"{type(self).__name__}: regularization_coeff must be a number, received None")
        super().__init__()
        self._regularization_coeff = float(regularization_coeff)

    def _scaled(self, source: Any, decay: Any, block: Any) -> Any:
        block.append_op("scale", {"X": source}, {"Out": decay}, {"scale": self._regularization_coeff})
        return decay

    @staticmethod
    def _new_decay(param: Any, block: Any) -> Any:
        return block.create_var(
            name=names.generate("_generated_var"), dtype=param.dtype, shape=param.shape, lod_level=param.lod_level
        )


class L2DecayRegularizer(_Decay):
    """The gradient of coeff / 2 * ||w||^2: coeff * w."""

    def __init__(self, regularization_coeff: float = 0.0) -> None:
        super().__init__(regularization_coeff)

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        return self._scaled(param, self._new_decay(param, block), block)


class L1DecayRegularizer(_Decay):
    """The gradient of coeff * |w|: coeff * sign(w)."""

    def __init__(self, regularization_coeff: float = 0.0) -> None:
        super().__init__(regularization_coeff)

    def __call__(self, param: Any, grad: Any, block: Any) -> Any:
        decay = self._new_decay(param, block)
        block.append_op("sign", {"X": param}, {"Out": decay})
        return self._scaled(decay, decay, block)


L1Decay = L1DecayRegularizer
L2Decay = L2DecayRegularizer


def append_regularization_ops(parameters_and_grads: Iterable[Any], regularization: Any = None) -> list[tuple[Any, Any]]:
    """Add to each gradient the decay of its parameter's own regulariser, else of `regularization`.

    Returns (parameter, gradient) pairs; the sum takes the gradient's place, but where the gradient is sparse it is a
    new dense variable.
    """
    pairs = []
    with name_scope("regularization"):
        for param, grad in parameters_and_grads:
            chosen = getattr(param, "regularizer", None) or regularization
            if grad is None or chosen is None:
                pairs.append((param, grad))
                continue
            with param.block.program._optimized_guard([param, grad]):
                pairs.append((param, _regularized(param, grad, chosen)))
    return pairs


def _regularized(param: Any, grad: Any, chosen: Any) -> Any:
    block = grad.block
    decay = chosen(param, grad, block)
    target = grad
    if grad.type is VarType.SELECTED_ROWS:
        target = block.create_var(
            name=grad.name + NEW_GRAD, dtype=param.dtype, shape=param.shape, lod_level=param.lod_level,
            type=VarType.LOD_TENSOR,
        )  # fmt: skip
    block.append_op("sum", {"X": [grad, decay]}, {"Out": target}, {"use_mkldnn": False})
    return target
