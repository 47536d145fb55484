"""Deformable convolution: each tap of the filter reads where a learned offset points."""

from __future__ import annotations

from typing import Any

import torch

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.nn._window import conv_size, explicit_pairs, positive


def _infer(x: Spec, offset: Spec, *rest: Spec, strides, paddings, dilations, groups, deformable_groups, im2col_step) -> Spec:
    w = rest[-1]
    if len(x.shape) != 4 or len(w.shape) != 4:
        raise ShapeError(f"Input and Filter must have 4 dimensions, received {list(x.shape)} and {list(w.shape)}")
    for name, values in (("strides", strides), ("dilations", dilations)):
        positive(name, values, 2)
    if groups <= 0 or (x.shape[1] >= 0 and x.shape[1] != w.shape[1] * groups) or w.shape[0] % groups:
        raise ShapeError(
            f"Filter {list(w.shape)} with groups {groups} takes {w.shape[1] * groups} channels and needs a number of "
            f"filters divisible by groups, received Input {list(x.shape)}"
        )
    out = [conv_size(*a) for a in zip(x.shape[2:], w.shape[2:], explicit_pairs(paddings, 2), strides, dilations)]
    taps = w.shape[2] * w.shape[3] * deformable_groups if min(w.shape[2:]) >= 0 else -1
    given = [("Offset", offset, 2 * taps)] + ([("Mask", rest[0], taps)] if len(rest) > 1 else [])
    for name, s, channels in given:
        if len(s.shape) != 4 or (min(s.shape[1], channels) >= 0 and s.shape[1] != channels):
            raise ShapeError(
                f"{name} must have shape [N, {channels}, {out[0]}, {out[1]}] for Filter {list(w.shape)} and "
                f"deformable_groups {deformable_groups}, received {list(s.shape)}"
            )
        for have, want in zip(s.shape[2:], out):
            if min(have, want) >= 0 and have != want:
                raise ShapeError(f"{name} must have the output's size {out}, received {list(s.shape)}")
    return Spec((x.shape[0], w.shape[0], *out), x.dtype)


def bilinear(x: torch.Tensor, h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x [..., C, H, W] read at fractional rows `h` and columns `w` [..., P]: [..., C, P]; zero outside the image."""
    height, width = x.shape[-2:]
    flat = x.flatten(-2)
    h0, w0 = torch.floor(h), torch.floor(w)
    down, right = h - h0, w - w0  # at whole positions the slope is that towards the next element
    reached = (h > -1) & (w > -1)
    out: Any = 0
    for dh in (0, 1):
        for dw in (0, 1):
            row, col = h0 + dh, w0 + dw
            weight = (down if dh else 1 - down) * (right if dw else 1 - right)
            inside = reached & (row >= 0) & (row < height) & (col >= 0) & (col < width)
            index = (row.clamp(0, height - 1) * width + col.clamp(0, width - 1)).long()
            picked = flat.gather(-1, index.unsqueeze(-2).expand(*flat.shape[:-1], index.shape[-1]))
            out = out + picked * (weight * inside).unsqueeze(-2)
    return out


def _columns(x, offset, mask, kernel, strides, paddings, dilations, groups) -> torch.Tensor:
    """The sampled patches, [N, C, taps, oh * ow]."""
    n, c = x.shape[:2]
    kh, kw = kernel
    oh, ow = offset.shape[2:]
    taps = kh * kw
    offset = offset.reshape(n, groups, taps, 2, oh, ow)
    device = x.device
    row = torch.arange(oh, device=device).view(1, oh, 1) * strides[0] - paddings[0]
    col = torch.arange(ow, device=device).view(1, 1, ow) * strides[1] - paddings[1]
    tap_h = (torch.arange(kh, device=device) * dilations[0]).repeat_interleave(kw).view(taps, 1, 1)
    tap_w = (torch.arange(kw, device=device) * dilations[1]).repeat(kh).view(taps, 1, 1)
    h = (offset[:, :, :, 0] + (row + tap_h)).reshape(n, groups, -1)
    w = (offset[:, :, :, 1] + (col + tap_w)).reshape(n, groups, -1)
    cols = bilinear(x.reshape(n, groups, c // groups, *x.shape[2:]), h, w)
    if mask is not None:
        cols = cols * mask.reshape(n, groups, 1, -1)
    return cols.reshape(n, c, taps, oh * ow)


def _run(x, offset, mask, w, strides, paddings, dilations, groups, deformable_groups, step):
    cols = _columns(x, offset, mask, w.shape[2:], strides, paddings, dilations, deformable_groups)
    n, (o, per) = x.shape[0], w.shape[:2]
    cols = cols.reshape(n, groups, per * w.shape[2] * w.shape[3], -1)
    out = torch.matmul(w.reshape(1, groups, o // groups, -1), cols)
    if 1 < step <= n and n % step == 0:
        # Fluid reads the output of a chunk of images, [O, step, size], as [step, O, size]: its results, and so models
        # trained with it, have filters and images of a chunk interleaved
        out = out.reshape(n // step, step, o, -1).transpose(1, 2)
    return out.reshape(n, o, *offset.shape[2:])


@op("deformable_conv", slots="Input, Offset, Mask, Filter -> Output", infer=_infer)
def deformable_conv(
    x,
    offset,
    mask,
    w,
    *,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    dilations: list[int] = [1, 1],
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
):
    """Modulated deformable convolution (Zhu et al. 2019, arXiv:1811.11168).

    Tap k at output position p reads Input at p * stride - padding + k * dilation + Offset (bilinear, zero outside),
    times Mask. Input [N, C, H, W], Offset [N, 2 * groups' taps, oh, ow] (row, column), Mask [N, taps, oh, ow],
    Filter [O, C/groups, kh, kw]. `im2col_step` images are
    one chunk: as in Fluid, a chunk's output [O, images, oh * ow] is laid out in that order (1 keeps images apart; more
    than the batch is 1).
    """
    return _run(x, offset, mask, w, strides, paddings, dilations, groups, deformable_groups, im2col_step)


@op("deformable_conv_v1", slots="Input, Offset, Filter -> Output", infer=_infer)
def deformable_conv_v1(
    x,
    offset,
    w,
    *,
    strides: list[int] = [1, 1],
    paddings: list[int] = [0, 0],
    dilations: list[int] = [1, 1],
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
):
    """deformable_conv without Mask (Dai et al. 2017, arXiv:1703.06211)."""
    return _run(x, offset, None, w, strides, paddings, dilations, groups, deformable_groups, im2col_step)
