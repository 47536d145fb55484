"""Losses as layers."""

from __future__ import annotations

from typing import Any

from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.layers._check import FLOATS, check_choice, check_variable_and_dtype

_REDUCTIONS = ("none", "mean", "sum")


class _Reduced(Layer):
    def __init__(self, reduction: str) -> None:
        super().__init__()
        check_choice(reduction, "reduction", _REDUCTIONS, type(self).__name__)
        self.reduction = reduction

    def _check(self, input: Any, label: Any) -> None:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        check_variable_and_dtype(label, "label", (*FLOATS, "int64"), self._full_name)

    def _reduce(self, loss: Any) -> Any:
        if self.reduction == "none":
            return loss
        if self.reduction == "mean":
            return self._helper.run("mean", {"X": [loss]}, {}, loss.dtype)
        return self._helper.run("reduce_sum", {"X": [loss]}, {"dim": [0], "keep_dim": False, "reduce_all": True}, loss.dtype)


class L1Loss(_Reduced):
    """|input - label|, its mean or sum."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, label: Any) -> Any:
        self._check(input, label)
        difference = self._helper.run("elementwise_sub", {"X": [input], "Y": [label]}, {"axis": -1}, input.dtype)
        return self._reduce(self._helper.run("abs", {"X": [difference]}, {}, input.dtype))


class MSELoss(_Reduced):
    """(input - label)^2, its mean or sum."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, label: Any) -> Any:
        self._check(input, label)
        difference = self._helper.run("elementwise_sub", {"X": [input], "Y": [label]}, {"axis": -1}, input.dtype)
        return self._reduce(self._helper.run("square", {"X": [difference]}, {}, input.dtype))


class BCELoss(_Reduced):
    """-(label * log(input) + (1 - label) * log(1 - input)), times `weight`, its mean or sum."""

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight

    def forward(self, input: Any, label: Any) -> Any:
        self._check(input, label)
        loss = self._helper.run("bce_loss", {"X": [input], "Label": [label]}, {}, input.dtype)
        if self.weight is not None:
            loss = self._helper.run("elementwise_mul", {"X": [loss], "Y": [self.weight]}, {"axis": -1}, input.dtype)
        return self._reduce(loss)


class NLLLoss(_Reduced):
    """-input[label] of log-probabilities, weighted by class.

    Args:
        weight: [classes]; reduction="mean" divides by the sum of the weights.
        ignore_index: labels that do not count.

    forward(input [N, C] or [N, C, d1, ...], label int64 [N] or [N, d1, ...]).
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", ignore_index: int = -100) -> None:
        super().__init__(reduction)
        self.weight = weight
        self._ignore_index = ignore_index

    def forward(self, input: Any, label: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        check_variable_and_dtype(label, "label", ("int64",), self._full_name)
        shape = list(input.shape)
        helper = self._helper
        if len(shape) not in (2, 4):  # the operator takes [N, C] and [N, C, H, W]
            x = self._reshaped(input, [0, 0, 1, -1])
            y = self._reshaped(label, [0, 1, -1])
        else:
            x, y = input, label
        inputs = {"X": [x], "Label": [y]}
        if self.weight is not None:
            inputs["Weight"] = [self.weight]
        out = helper.create_variable_for_type_inference(input.dtype)
        total = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
        attrs = {"reduction": self.reduction, "ignore_index": self._ignore_index}
        helper.append_op(type="nll_loss", inputs=inputs, outputs={"Out": [out], "Total_weight": [total]}, attrs=attrs)
        if self.reduction == "none" and x is not input:
            out = self._reshaped(out, [shape[0], *shape[2:]])
        return out

    def _reshaped(self, x: Any, shape: list[int]) -> Any:
        out = self._helper.create_variable_for_type_inference(x.dtype)
        extra = self._helper.create_variable_for_type_inference(x.dtype, stop_gradient=True)
        outputs = {"Out": [out], "XShape": [extra]}
        self._helper.append_op(type="reshape2", inputs={"X": [x]}, outputs=outputs, attrs={"shape": shape})
        return out
