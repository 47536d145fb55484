"""Initialisers: each appends one operator to the startup Program that fills a parameter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from millstream.errors import InvalidProgramError
from millstream.ir.operator import Operator
from millstream.ir.types import VarType

__all__ = [
    "MSRA",
    "Bilinear",
    "BilinearInitializer",
    "Constant",
    "ConstantInitializer",
    "Initializer",
    "MSRAInitializer",
    "Normal",
    "NormalInitializer",
    "NumpyArrayInitializer",
    "TruncatedNormal",
    "TruncatedNormalInitializer",
    "Uniform",
    "UniformInitializer",
    "Xavier",
    "XavierInitializer",
    "force_init_on_cpu",
    "init_on_cpu",
]


class _OnCpu:
    force = False


def force_init_on_cpu() -> bool:
    """Whether ``init_on_cpu`` is in force."""
    return _OnCpu.force


@contextlib.contextmanager
def init_on_cpu() -> Iterator[None]:
    """Initialise variables made inside on the CPU (they always are, unless the Executor's place is a GPU)."""
    old, _OnCpu.force = _OnCpu.force, True
    try:
        yield
    finally:
        _OnCpu.force = old


class Initializer:
    """Base of all initialisers; call it with a variable and the Block to append to."""

    def __call__(self, var: Any, block: Any) -> Operator:
        raise NotImplementedError

    @staticmethod
    def _prepend(block: Any, op_type: str, var: Any, attrs: dict[str, Any]) -> Operator:
        """Prepend, as Fluid does: a startup Program lists the last made parameter first."""
        op = block._prepend_op(type=op_type, inputs={}, outputs={"Out": var}, attrs=attrs)
        var.op = op
        return op

    @staticmethod
    def _fans(var: Any) -> tuple[int, int]:
        """(fan_in, fan_out) of a weight: [in, out], or [out, in, *kernel]."""
        shape = var.shape
        if len(shape) == 0:
            return 1, 1
        if len(shape) == 1:
            return shape[0], shape[0]
        if len(shape) == 2:
            return shape[0], shape[1]
        receptive = int(np.prod(shape[2:]))
        return shape[1] * receptive, shape[0] * receptive

    def _compute_fans(self, var: Any) -> tuple[int, int]:
        """1.8.5's name of :meth:`_fans`, for initializers that users write."""
        return self._fans(var)

    @staticmethod
    def _seed(seed: int, block: Any) -> int:
        return seed if seed else block.program.random_seed


class ConstantInitializer(Initializer):
    """Fill with `value`."""

    def __init__(self, value: float = 0.0, force_cpu: bool = False) -> None:
        if value is None:
            raise InvalidProgramError("Constant: value must be a number, received None")
        self.value = value
        self._force_cpu = force_cpu

    @property
    def _value(self) -> float:
        return self.value

    def __call__(self, var: Any, block: Any) -> Operator:
        attrs = {
            "shape": list(var.shape),
            "dtype": var.dtype,
            "value": float(self.value),
            "str_value": "",
            "force_cpu": self._force_cpu or force_init_on_cpu(),
        }
        return self._prepend(block, "fill_constant", var, attrs)


class UniformInitializer(Initializer):
    """Uniform in [low, high); optionally with values on a diagonal."""

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        seed: int = 0,
        diag_num: int = 0,
        diag_step: int = 0,
        diag_val: float = 1.0,
    ) -> None:
        if low is None or high is None or high < low:
            raise ValueError(f"Uniform: need low <= high, received low={low}, high={high}")
        if diag_num > 0 and diag_step == 0:
            raise ValueError("Uniform: diag_step must not be 0 when diag_num is given")
        self._low, self._high, self._seed_value = low, high, seed
        self._diag_num, self._diag_step, self._diag_val = diag_num, diag_step, diag_val

    def __call__(self, var: Any, block: Any) -> Operator:
        attrs = {
            "shape": list(var.shape),
            "dtype": var.dtype,
            "min": self._low,
            "max": self._high,
            "seed": self._seed(self._seed_value, block),
            "diag_num": self._diag_num,
            "diag_step": self._diag_step,
            "diag_val": self._diag_val,
        }
        return self._prepend(block, "uniform_random", var, attrs)


class NormalInitializer(Initializer):
    """Normal with mean `loc` and standard deviation `scale`."""

    _op = "gaussian_random"

    def __init__(self, loc: float = 0.0, scale: float = 1.0, seed: int = 0) -> None:
        if loc is None or scale is None or seed is None:
            raise ValueError(f"{type(self).__name__}: loc, scale and seed must be numbers")
        self._mean, self._std_dev, self._seed_value = loc, scale, seed

    def __call__(self, var: Any, block: Any) -> Operator:
        attrs = {
            "shape": list(var.shape),
            "dtype": var.dtype,
            "mean": float(self._mean),
            "std": float(self._std_dev),
            "seed": self._seed(self._seed_value, block),
        }
        return self._prepend(block, self._op, var, attrs)


class TruncatedNormalInitializer(NormalInitializer):
    """Normal, redrawn outside two standard deviations."""

    _op = "truncated_gaussian_random"


class _FanInitializer(Initializer):
    """Uniform or normal with a spread computed from fan_in and fan_out."""

    def __init__(self, uniform: bool, fan_in: float | None, fan_out: float | None, seed: int) -> None:
        if uniform is None or seed is None:
            raise ValueError(f"{type(self).__name__}: uniform and seed must not be None, received {uniform}, {seed}")
        self._uniform, self._fan_in, self._fan_out, self._seed_value = uniform, fan_in, fan_out, seed

    def _variance(self, fan_in: float, fan_out: float) -> float:
        raise NotImplementedError

    def __call__(self, var: Any, block: Any) -> Operator:
        fan_in, fan_out = self._fans(var)
        variance = self._variance(
            fan_in if self._fan_in is None else self._fan_in, fan_out if self._fan_out is None else self._fan_out
        )
        attrs: dict[str, Any] = {
            "shape": list(var.shape),
            "dtype": var.dtype,
            "seed": self._seed(self._seed_value, block),
        }
        if self._uniform:
            limit = math.sqrt(3.0 * variance)
            return self._prepend(block, "uniform_random", var, attrs | {"min": -limit, "max": limit})
        return self._prepend(block, "gaussian_random", var, attrs | {"mean": 0.0, "std": math.sqrt(variance)})


class XavierInitializer(_FanInitializer):
    """Variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    def __init__(
        self, uniform: bool = True, fan_in: float | None = None, fan_out: float | None = None, seed: int = 0
    ) -> None:
        super().__init__(uniform, fan_in, fan_out, seed)

    def _variance(self, fan_in: float, fan_out: float) -> float:
        return 2.0 / (fan_in + fan_out)


class MSRAInitializer(_FanInitializer):
    """Variance 2 / fan_in (He et al., 2015, arXiv:1502.01852)."""

    def __init__(self, uniform: bool = True, fan_in: float | None = None, seed: int = 0) -> None:
        super().__init__(uniform, fan_in, None, seed)

    def _variance(self, fan_in: float, fan_out: float) -> float:
        return 2.0 / fan_in


class BilinearInitializer(Initializer):
    """Weights of a transposed convolution that upsamples bilinearly; for [C, 1 or C, k, k] weights.

    As 1.8.5 computes them on Python 3: the row of an element is its position divided by k without rounding, so the weights
    are a little skewed. (On Python 2 they were symmetrical.)
    """

    def __call__(self, var: Any, block: Any) -> Operator:
        shape = var.shape
        if len(shape) != 4 or shape[2] != shape[3]:
            raise InvalidProgramError(f"Bilinear: expects a 4-D weight with a square kernel, received {var.describe()}")
        k = shape[3]
        factor = math.ceil(k / 2.0)
        center = (2 * factor - 1 - factor % 2) / (2.0 * factor)
        position = np.arange(k * k)
        column, row = position % k, (position / k) % k
        weight = (1 - np.abs(column / factor - center)) * (1 - np.abs(row / factor - center))
        weight = np.broadcast_to(weight.reshape(k, k), shape)
        attrs = NumpyArrayInitializer(weight.astype("float32")).attrs(var)
        # behind the other parameters, as Fluid does with this one initialiser
        op = block.append_op(type="assign_value", inputs={}, outputs={"Out": var}, attrs=attrs)
        var.op = op
        return op


class NumpyArrayInitializer(Initializer):
    """The values of a numpy array, kept in the startup Program (at most a million of them)."""

    def __init__(self, value: np.ndarray) -> None:
        if not isinstance(value, np.ndarray):
            raise InvalidProgramError(f"NumpyArrayInitializer takes a numpy array, received {type(value).__name__}")
        self._value = value

    def attrs(self, param: Any) -> dict[str, Any]:
        """Attributes of the `assign_value` that fills `param`."""
        if self._value.size > 1024 * 1024:
            raise ValueError(
                f"NumpyArrayInitializer: {self._value.size} values are too many to keep in a Program (limit 1048576); "
                "set the parameter through the scope instead"
            )
        if param.dtype in (VarType.INT32, VarType.INT64, VarType.BOOL):
            kind = {VarType.INT32: "int32_values", VarType.INT64: "int64_values", VarType.BOOL: "bool_values"}[param.dtype]
            values: list[Any] = [int(v) for v in self._value.ravel()]
        else:
            kind, values = "fp32_values", [float(v) for v in self._value.ravel()]
        return {"shape": list(self._value.shape), "dtype": param.dtype, kind: values}

    def __call__(self, var: Any, block: Any) -> Operator:
        return self._prepend(block, "assign_value", var, self.attrs(var))


Constant = ConstantInitializer
Uniform = UniformInitializer
Normal = NormalInitializer
TruncatedNormal = TruncatedNormalInitializer
Xavier = XavierInitializer
MSRA = MSRAInitializer
Bilinear = BilinearInitializer
