"""Spatial transformer: affine_grid makes sampling positions, grid_sampler reads an image at them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from millstream.errors import ShapeError
from millstream.ops._opdef import op
from millstream.ops._values import Spec
from millstream.ops.tensor._dims import fit


def _infer_affine_grid(theta: Spec, output_shape_tensor: Spec | None, *, output_shape) -> Spec:
    if len(theta.shape) != 3 or theta.shape[1:] != (2, 3):
        raise ShapeError(f"Theta must have shape [N, 2, 3], received {list(theta.shape)}")
    if output_shape_tensor is None and len(output_shape) != 4:
        raise ShapeError(f"output_shape must have 4 numbers [N, C, H, W], received {output_shape}")
    return Spec((theta.shape[0], -1, -1, 2), theta.dtype)


def _base_grid(h: int, w: int, like: torch.Tensor) -> torch.Tensor:
    """[H * W, 3]: (x, y, 1) of each output position, from -1 to 1."""
    xs, ys = (torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) for n in (w, h))
    if min(w, h) == 1:  # the step is 2 / (size - 1): one position stands nowhere, in 1.8.5 too
        xs, ys = (at if at.numel() > 1 else torch.full_like(at, math.nan) for at in (xs, ys))
    grid = torch.stack([xs.expand(h, w), ys.unsqueeze(1).expand(h, w), torch.ones_like(xs).expand(h, w)], -1)
    return grid.reshape(-1, 3)


def _size(shape_tensor: torch.Tensor | None, shape: list[int]) -> tuple[int, int]:
    values = shape if shape_tensor is None else shape_tensor.reshape(-1).tolist()
    return int(values[2]), int(values[3])


@op("affine_grid", slots="Theta, OutputShape? -> Output", infer=_infer_affine_grid, lod="Theta", nodiff="OutputShape")
def affine_grid(theta, shape_tensor, *, output_shape: list[int] = []):
    """Output[n, h, w] = Theta[n] (x, y, 1)^T with x, y evenly from -1 to 1 (Jaderberg et al. 2015, arXiv:1506.02025).

    Theta [N, 2, 3]; OutputShape (or `output_shape`) is [N, C, H, W]; Output [N, H, W, 2].
    """
    h, w = _size(shape_tensor, output_shape)
    return (_base_grid(h, w, theta) @ theta.transpose(1, 2)).reshape(theta.shape[0], h, w, 2)


@op("affine_grid_grad", slots="OutputShape?, Output@GRAD -> Theta@GRAD")
def affine_grid_grad(shape_tensor, dout, *, output_shape: list[int] = []):
    h, w = dout.shape[1:3]
    return dout.reshape(dout.shape[0], h * w, 2).transpose(1, 2) @ _base_grid(h, w, dout)


def _infer_grid_sampler(x: Spec, grid: Spec) -> Spec:
    if len(x.shape) != 4 or len(grid.shape) != 4 or not fit(grid.shape[3], 2):
        raise ShapeError(f"X must be [N, C, H, W] and Grid [N, H, W, 2], received {list(x.shape)} and {list(grid.shape)}")
    if x.shape[0] >= 0 and grid.shape[0] >= 0 and x.shape[0] != grid.shape[0]:
        raise ShapeError(f"X and Grid must have one batch size, received {list(x.shape)} and {list(grid.shape)}")
    places = (g if d == -1 else d for d, g in zip(x.shape[2:], grid.shape[1:3]))  # they are of one size
    return Spec((*x.shape[:2], *places), x.dtype, x.lod_level)


@op("grid_sampler", slots="X, Grid -> Output", infer=_infer_grid_sampler, lod="X")
def grid_sampler(x, grid):
    """Bilinear reading of X [N, C, H, W] at Grid [N, H', W', 2] = (x, y) in [-1, 1], corners at ±1; zero outside."""
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


@op("grid_sampler_grad", slots="X, Grid, Output@GRAD -> X@GRAD, Grid@GRAD")
def grid_sampler_grad(x, grid, dout, *, want):
    return torch.ops.aten.grid_sampler_2d_backward(dout, x, grid, 0, 0, True, want)
