"""ParamAttr: how a layer's parameter is named, initialised and trained."""

from __future__ import annotations

import numbers
from typing import Any

from millstream.fluid import initializer as init
from millstream.ir.variable import Variable

__all__ = ["ParamAttr", "WeightNormParamAttr"]


class ParamAttr:
    """Attributes of a parameter.

    Args:
        name: the variable's name; two layers with one name share it. None: generated.
        initializer: see millstream.fluid.initializer; None: the layer's default.
        learning_rate: multiplies the optimizer's.
        regularizer: overrides the optimizer's `regularization`.
        trainable: whether it gets a gradient.
        gradient_clip: (form of 1.1) clip attribute of this parameter; overrides set_gradient_clip.
        do_model_average: whether ModelAverage averages it.
    """

    def __init__(
        self,
        name: str | None = None,
        initializer: Any = None,
        learning_rate: float = 1.0,
        regularizer: Any = None,
        trainable: bool = True,
        do_model_average: bool = True,
        gradient_clip: Any = None,
    ) -> None:
        for value, kind, what in ((name, str, "name"), (trainable, bool, "trainable")):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"ParamAttr: {what} must be {kind.__name__}, received {type(value).__name__}: {value!r}")
        if isinstance(do_model_average, bool) is False and gradient_clip is None:
            # 1.1 had gradient_clip as the sixth positional argument.
            gradient_clip, do_model_average = do_model_average, True
        if not isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, Variable):
            raise TypeError(f"ParamAttr: learning_rate must be a number, received {learning_rate!r}")
        if isinstance(gradient_clip, (numbers.Real, str)):
            raise TypeError(f"ParamAttr: do_model_average must be a bool, received {gradient_clip!r}")
        self.name = name
        self.initializer = initializer
        self.learning_rate = learning_rate
        self.regularizer = regularizer
        self.trainable = trainable
        self.do_model_average = do_model_average
        self.gradient_clip = gradient_clip

    def _set_default_initializer(self, initializer: Any) -> None:
        if self.initializer is None:
            self.initializer = initializer

    def _set_default_param_initializer(self) -> None:
        self._set_default_initializer(init.Xavier())

    def _set_default_bias_initializer(self) -> None:
        self._set_default_initializer(init.Constant(0.0))

    @staticmethod
    def _to_attr(arg: Any) -> Any:
        """None, a name, an initializer, a regulariser, a bool, a ParamAttr or a list of these, as ParamAttr (or False)."""
        if arg is None:
            return ParamAttr()
        if isinstance(arg, (list, tuple)):
            return [ParamAttr._to_attr(a) for a in arg]
        if isinstance(arg, ParamAttr):
            return arg
        if isinstance(arg, str):
            return ParamAttr(name=arg)
        if isinstance(arg, init.Initializer):
            return ParamAttr(initializer=arg)
        if isinstance(arg, bool):
            return ParamAttr._to_attr(None) if arg else False
        if hasattr(arg, "_regularization_coeff") or hasattr(arg, "append_regularization_op"):
            return ParamAttr(regularizer=arg)
        raise TypeError(f"a parameter attribute is None, str, bool, ParamAttr, Initializer or regularizer; received {arg!r}")

    def _to_kwargs(self, with_initializer: bool = False) -> dict[str, Any]:
        kwargs = {
            "name": self.name,
            "optimize_attr": {"learning_rate": self.learning_rate},
            "regularizer": self.regularizer,
            "trainable": self.trainable,
            "do_model_average": self.do_model_average,
            "gradient_clip_attr": self.gradient_clip,
        }
        if with_initializer:
            kwargs["initializer"] = self.initializer
        return kwargs


class WeightNormParamAttr(ParamAttr):
    """A parameter w = g * v / ||v|| (Salimans and Kingma, 2016, arXiv:1602.07868).

    Args:
        dim: the dimension that keeps its own norm; None: one norm for the whole tensor.
    """

    def __init__(
        self,
        dim: int | None = None,
        name: str | None = None,
        initializer: Any = None,
        learning_rate: float = 1.0,
        regularizer: Any = None,
        trainable: bool = True,
        do_model_average: bool = False,
        gradient_clip: Any = None,
    ) -> None:
        super().__init__(name, initializer, learning_rate, regularizer, trainable, do_model_average, gradient_clip)
        self.dim = dim
