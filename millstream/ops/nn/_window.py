"""Sizes and paddings of sliding windows, as convolutions and poolings of Fluid count them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from millstream.errors import AttributeTypeError, ShapeError
from millstream.ops._values import Spec

CHANNELS_LAST = frozenset({"NHWC", "NDHWC"})
_LAYOUTS = frozenset({"NCHW", "NCDHW", "NHWC", "NDHWC", "AnyLayout"})

Pairs = list[tuple[int, int]]


def channels_second(x: torch.Tensor) -> torch.Tensor:
    """[N, …, C] seen as [N, C, …] (a view)."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x.movedim(-1, 1)


def channels_back(x: torch.Tensor) -> torch.Tensor:
    """[N, C, …] seen as [N, …, C] (a view)."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x.movedim(1, -1)


# What oneDNN's convolutions take; other types go through loops that want NCHW in memory.
_FAST_DTYPES = frozenset({torch.float32, torch.bfloat16})


def nearby_channels(x: torch.Tensor) -> torch.Tensor:
    """`x` [N, C, H, W] with the channels of a pixel side by side in memory, where convolutions are faster so.

    The shape stays. oneDNN's results keep that order and so do torch's pointwise operators, batch norm and pooling:
    a network is reordered once, at its first convolution (figures: docs/design.md, "Channels last").
    """
    if x.dtype in _FAST_DTYPES and x.is_cpu and x.dim() == 4:
        if x.shape[1] == 1:  # both orders are the same memory: say which one is meant
            height, width = x.shape[2:]
            return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
        return x.contiguous(memory_format=torch.channels_last)
    return x


def check_layout(layout: str) -> None:
    """AttributeTypeError unless `layout` is one of Fluid's."""
    if layout not in _LAYOUTS:
        raise AttributeTypeError(f"data_format must be one of {', '.join(sorted(_LAYOUTS))}, received {layout!r}")


def explicit_pairs(paddings: Sequence[int], rank: int) -> Pairs:
    """Paddings attribute (one number a dimension, or two) as (before, after) pairs."""
    if len(paddings) == rank:
        return [(p, p) for p in paddings]
    if len(paddings) == 2 * rank:
        return [(paddings[2 * i], paddings[2 * i + 1]) for i in range(rank)]
    raise ShapeError(
        f"paddings must have {rank} or {2 * rank} numbers for {rank} spatial dimensions, received {list(paddings)}"
    )


def resolve(
    algorithm: str,
    paddings: Sequence[int],
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[Pairs, list[int]]:
    """Padding pairs and dilations after ``padding_algorithm``.

    SAME pads so that a stride-s window gives ceil(size / s) positions, the odd one after, and resets dilations
    to 1; VALID pads nothing.
    """
    rank = len(strides)
    if algorithm == "SAME":
        pairs = []
        for size, k, s in zip(sizes, kernel, strides):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            pairs.append((total // 2, total - total // 2))
        return pairs, [1] * rank
    if algorithm == "VALID":
        return [(0, 0)] * rank, list(dilations)
    return explicit_pairs(paddings, rank), list(dilations)


def flat_pad(pairs: Pairs) -> list[int]:
    """Pairs in the order torch's pad wants: last dimension first."""
    return [p for pair in reversed(pairs) for p in pair]


def pad_input(x: torch.Tensor, pairs: Pairs, value: float = 0.0) -> torch.Tensor:
    """`x` [N, C, …] padded; `x` itself when nothing is to pad."""
    if not any(a or b for a, b in pairs):
        return x
    return F.pad(x, flat_pad(pairs), value=value)


def unpad(x: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """The inside of a padded [N, C, …] (a view, unless something was cut off instead)."""
    if any(a < 0 or b < 0 for a, b in pairs):
        return F.pad(x, [-p for p in flat_pad(pairs)])
    for axis, (before, after) in enumerate(pairs, 2):
        if before or after:
            x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def split_layout(x: Spec, data_format: str) -> tuple[int, int, tuple[int, ...]]:
    """Batch size, channels and spatial sizes of an input."""
    check_layout(data_format)
    if data_format in CHANNELS_LAST:
        return x.shape[0], x.shape[-1], x.shape[1:-1]
    return x.shape[0], x.shape[1], x.shape[2:]


def join_layout(n: int, c: int, sizes: Sequence[int], data_format: str) -> tuple[int, ...]:
    """The shape of an output."""
    return (n, *sizes, c) if data_format in CHANNELS_LAST else (n, c, *sizes)


def positive(name: str, values: Sequence[int], rank: int) -> None:
    """ShapeError unless `values` are `rank` numbers above 0."""
    if len(values) != rank or any(v <= 0 for v in values):
        raise ShapeError(f"{name} must be {rank} positive numbers, received {list(values)}")


def check_per_channel(x: Spec, c: int, given: Sequence[tuple[str, Spec | None]]) -> None:
    """ShapeError unless each of `given` is absent or has one number for each of the `c` channels of `x`."""
    for name, s in given:
        if s is not None and (len(s.shape) != 1 or (c >= 0 and s.shape[0] >= 0 and s.shape[0] != c)):
            raise ShapeError(
                f"{name} must have shape [{c}], one number per channel of X {list(x.shape)}, received {list(s.shape)}"
            )


def conv_size(size: int, k: int, pair: tuple[int, int], stride: int, dilation: int) -> int:
    """Number of window positions along one dimension; -1 when `size` or `k` is unknown."""
    if size < 0 or k < 0:
        return -1
    out = (size + pair[0] + pair[1] - (dilation * (k - 1) + 1)) // stride + 1
    if out <= 0:
        raise ShapeError(
            f"the window does not fit: input size {size}, padding {pair}, filter {k}, stride {stride}, dilation {dilation} "
            f"give output size {out}; expected more than 0"
        )
    return out
