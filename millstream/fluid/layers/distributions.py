"""Probability distributions whose methods append operators.

Parameters are floats, lists, numpy arrays (all broadcast to one shape and kept as float32), or all Variables.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from millstream.fluid.layers._check import check_type, check_variable, is_variable, refuse, refuse_type
from millstream.fluid.layers.compare import less_than
from millstream.fluid.layers.nn.activation import log
from millstream.fluid.layers.nn.dense import matmul
from millstream.fluid.layers.nn.elementwise import elementwise_pow
from millstream.fluid.layers.nn.manipulate import reshape, transpose
from millstream.fluid.layers.nn.manipulate import shape as shape_of
from millstream.fluid.layers.nn.random import gaussian_random, uniform_random, uniform_random_batch_size_like
from millstream.fluid.layers.nn.reduce import reduce_max, reduce_prod, reduce_sum
from millstream.fluid.layers.ops import exp
from millstream.fluid.layers.tensor import (
    assign,
    cast,
    create_tensor,
    diag,
    fill_constant_batch_size_like,
    ones,
    zeros,
)

__all__ = ["Categorical", "MultivariateNormalDiag", "Normal", "Uniform"]


class Distribution:
    """Base of all distributions."""

    def sample(self) -> Any:
        raise NotImplementedError

    def entropy(self) -> Any:
        raise NotImplementedError

    def kl_divergence(self, other: Any) -> Any:
        raise NotImplementedError

    def log_prob(self, value: Any) -> Any:
        raise NotImplementedError

    def _same_kind(self, other: Any) -> None:
        if type(other) is not type(self):
            refuse_type("kl_divergence", f"'other' must be a {type(self).__name__} too, received {type(other).__name__}")


def _parameters(owner: str, **given: Any) -> list[Any]:
    """The parameters as Variables of one shape."""
    for name, value in given.items():
        if not is_variable(value) and not isinstance(value, (float, list, tuple, np.ndarray)):
            refuse_type(
                owner, f"'{name}' must be a float, list, numpy array or Variable, received {type(value).__name__}: {value!r}"
            )
    values = list(given.values())
    if any(is_variable(v) for v in values):
        if not all(is_variable(v) for v in values):
            refuse(owner, f"if one of {', '.join(given)} is a Variable, all must be")
        return values
    try:
        arrays = np.broadcast_arrays(*[np.atleast_1d(np.asarray(v, "float32")) for v in values])
    except ValueError:
        refuse(owner, f"{', '.join(given)} must be numbers that broadcast to one shape, received {values}")
    return [assign(np.ascontiguousarray(a), create_tensor("float32")) for a in arrays]


class _LocationScale(Distribution):
    """What Normal and Uniform share: two parameters of one shape, and samples of ``shape + parameters' shape``."""

    def __init__(self, name: str, **given: Any) -> None:
        self._first, self._second = _parameters(name, **given)
        self._all_floats = all(isinstance(v, float) for v in given.values())

    def _leading(self, wanted: Any, owner: str) -> tuple[list[int], list[int], bool]:
        """(sample shape, parameters' shape, whether that has an unknown dimension)."""
        check_type(wanted, "shape", (list, tuple), owner)
        both = [int(d) for d in (self._first + self._second).shape]
        return [int(d) for d in wanted], both, any(d < 0 for d in both)

    def _unknown_zeros(self, wanted: list[int], both: list[int]) -> Any:
        """Zeros of the parameters' shape with the sample shape behind it, where the batch lines up."""
        return fill_constant_batch_size_like(self._first + self._second, both + wanted, self._first.dtype, 0.0)

    @staticmethod
    def _to_front(drawn: Any, wanted: list[int], both: list[int]) -> Any:
        """Move the sample dimensions, which stand last, before the parameters'."""
        rank = len(both)
        return transpose(drawn, [*range(rank, rank + len(wanted)), *range(rank)])


class Uniform(_LocationScale):
    """Uniform in [low, high)."""

    def __init__(self, low: Any, high: Any) -> None:
        super().__init__("Uniform", low=low, high=high)
        self.low, self.high = self._first, self._second

    def sample(self, shape: Any, seed: int = 0) -> Any:  # type: ignore[override]
        """Draws of shape ``shape + parameters' shape`` (``shape`` for float parameters)."""
        wanted, both, unknown = self._leading(shape, "Uniform.sample")
        if unknown:
            nothing = self._unknown_zeros(wanted, both)
            drawn = uniform_random_batch_size_like(nothing, nothing.shape, dtype=self.low.dtype, min=0.0, max=1.0, seed=seed)
            return self._to_front(drawn * (nothing + self.high - self.low) + self.low, wanted, both)
        drawn = uniform_random(wanted + both, min=0.0, max=1.0, seed=seed)
        drawn = drawn * (zeros(wanted + both, dtype=self.low.dtype) + (self.high - self.low)) + self.low
        return reshape(drawn, wanted) if self._all_floats else drawn

    def log_prob(self, value: Any) -> Any:
        """log(1 / (high - low)) inside, -infinity outside."""
        check_variable(value, "value", "Uniform.log_prob")
        above, below = less_than(self.low, value), less_than(value, self.high)
        inside = cast(above, dtype=value.dtype) * cast(below, dtype=value.dtype)
        return log(inside) - log(self.high - self.low)

    def entropy(self) -> Any:
        """log(high - low)."""
        return log(self.high - self.low)


class Normal(_LocationScale):
    """Normal with mean `loc` and standard deviation `scale`."""

    def __init__(self, loc: Any, scale: Any) -> None:
        super().__init__("Normal", loc=loc, scale=scale)
        self.loc, self.scale = self._first, self._second

    def sample(self, shape: Any, seed: int = 0) -> Any:  # type: ignore[override]
        """Draws of shape ``shape + parameters' shape`` (``shape`` for float parameters)."""
        wanted, both, unknown = self._leading(shape, "Normal.sample")
        if unknown:
            nothing = self._unknown_zeros(wanted, both)
            drawn = gaussian_random(shape_of(nothing), mean=0.0, std=1.0, seed=seed, dtype=self.loc.dtype)
            return self._to_front(drawn * (nothing + self.scale) + self.loc, wanted, both)
        drawn = gaussian_random(wanted + both, mean=0.0, std=1.0, seed=seed)
        drawn = drawn * (zeros(wanted + both, dtype=self.loc.dtype) + self.scale) + self.loc
        return reshape(drawn, wanted) if self._all_floats else drawn

    def entropy(self) -> Any:
        """0.5 + 0.5 * log(2 * pi) + log(scale), in the parameters' common shape."""
        both = list((self.loc + self.scale).shape)
        nothing = fill_constant_batch_size_like(self.loc + self.scale, both, self.loc.dtype, 0.0)
        return log(self.scale + nothing) + (0.5 + 0.5 * math.log(2 * math.pi))

    def log_prob(self, value: Any) -> Any:
        """-(value - loc) ** 2 / (2 * scale ** 2) - log(scale) - log(sqrt(2 * pi))."""
        check_variable(value, "value", "Normal.log_prob")
        variance = self.scale * self.scale
        log_scale = log(self.scale)
        squared = -1.0 * ((value - self.loc) * (value - self.loc))
        return squared / (2.0 * variance) - log_scale - math.log(math.sqrt(2.0 * math.pi))

    def kl_divergence(self, other: Any) -> Any:
        """0.5 * (r + d - 1 - log(r)) with r = (scale / other's) ** 2 and d = ((loc - other's) / other's scale) ** 2."""
        self._same_kind(other)
        ratio = self.scale / other.scale
        ratio = ratio * ratio
        distance = (self.loc - other.loc) / other.scale
        distance = distance * distance
        return 0.5 * (ratio + distance - 1.0 - log(ratio))


class Categorical(Distribution):
    """Categories with probabilities softmax(logits) over the last dimension."""

    def __init__(self, logits: Any) -> None:
        self.logits = _parameters("Categorical", logits=logits)[0]

    def _shifted(self) -> Any:
        """The logits with a greatest one of 0."""
        return self.logits - reduce_max(self.logits, dim=-1, keep_dim=True)

    def kl_divergence(self, other: Any) -> Any:
        """Sum of p * (log p - log q), the last dimension kept as 1."""
        self._same_kind(other)
        mine, others = self._shifted(), other._shifted()
        e_mine, e_others = exp(mine), exp(others)
        z_mine = reduce_sum(e_mine, dim=-1, keep_dim=True)
        z_others = reduce_sum(e_others, dim=-1, keep_dim=True)
        p = e_mine / z_mine
        return reduce_sum(p * (mine - log(z_mine) - others + log(z_others)), dim=-1, keep_dim=True)

    def entropy(self) -> Any:
        """-Sum of p * log p, the last dimension kept as 1."""
        mine = self._shifted()
        e_mine = exp(mine)
        z_mine = reduce_sum(e_mine, dim=-1, keep_dim=True)
        p = e_mine / z_mine
        return -1.0 * reduce_sum(p * (mine - log(z_mine)), dim=-1, keep_dim=True)


class MultivariateNormalDiag(Distribution):
    """Normal vectors with mean `loc` [k] and the diagonal covariance matrix `scale` [k, k]."""

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = _parameters("MultivariateNormalDiag", loc=loc, scale=scale)

    def _det(self, matrix: Any) -> Any:
        """The product of the diagonal: everything off it is made 1."""
        size = list(matrix.shape)
        everywhere = ones(shape=size, dtype=self.loc.dtype)
        on_diagonal = diag(ones(shape=[size[0]], dtype=self.loc.dtype))
        return reduce_prod(matrix + everywhere - on_diagonal)

    def _inverse(self, matrix: Any) -> Any:
        """Elements on the diagonal to the power -1, the (zero) others to the power 1."""
        size = list(matrix.shape)
        everywhere = ones(shape=size, dtype=self.loc.dtype)
        on_diagonal = diag(ones(shape=[size[0]], dtype=self.loc.dtype))
        return elementwise_pow(matrix, everywhere - 2 * on_diagonal)

    def entropy(self) -> Any:
        """0.5 * (k * (1 + log(2 * pi)) + log(det(scale)))."""
        return 0.5 * (self.scale.shape[0] * (1.0 + math.log(2 * math.pi)) + log(self._det(self.scale)))

    def kl_divergence(self, other: Any) -> Any:
        """0.5 * (trace(S2^-1 S1) + (m2 - m1)^T S2^-1 (m2 - m1) - k + log(det S2 / det S1))."""
        self._same_kind(other)
        trace = reduce_sum(self._inverse(other.scale) * self.scale)
        distance = matmul(other.loc - self.loc, self._inverse(other.scale))
        distance = matmul(distance, other.loc - self.loc)
        size = self.scale.shape[0]
        log_dets = log(self._det(other.scale)) - log(self._det(self.scale))
        return 0.5 * (trace + distance - size + log_dets)
