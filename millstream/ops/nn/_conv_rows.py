"""2-D convolutions of channels-last maps by other means than torch's, where those are slow, on the CPU.

- **Pointwise**: 1x1 filters are a product over rows of pixels, in register tiles where numba is loaded, else by oneDNN. Its
  products reach more of the processor's peak than its convolutions of this memory order. One thread, oneDNN's products,
  GFLOP/s of output, input gradient, filter gradient, convolution -> product (peak 112): 32 to 64 on 8x112x112 66, 45, 45 ->
  91, 93, 75; 128 to 128 on 257x257 50, 43, 73 -> 81, 84, 93; 512 to 128 on 8x28x28 80, 78, 84 -> 98, 97, 103; 728 to 728
  on 33x33 94, 90 -> 98, 92.
- **Planes**: large filters over few pixels. oneDNN reorders filters more slowly for channels-last maps than for planes of
  a channel, and the filters are what is large there: 512 to 1,024, 3x3, on 10x10 16, 17 -> 12, 12 ms.
- **Windows**: the gradient of a large filter over few pixels, or of a strided one, as a product with the windows of the
  input; over more than a few pixels they are gathered and used bit by bit in the cache. Processor ms, oneDNN -> so: 3x3 of
  512 to 1,024 on 10x10 49 -> 12; of 512 on 8x7x7 39 -> 22; with stride 2 64 to 128 on 4x160x160 135 -> 39, 32 to 64 on
  8x208x208 55 -> 37; 4x4 of 64 to 128 on 64x14x14 11.1 -> 9.1 (windows in memory: 11.6). At stride 1 oneDNN is as fast or
  faster. In bfloat16: 256 on 8x14x14 58 -> 11.
- **Depthwise** with dilation: torch's loop over channels takes 20 to 130 ms for what the kernels do in 5 to 10
  (2,048 channels of 33x33). Gradients of filters other than 3x3: oneDNN has 2 to 6 GFLOP/s, the kernel 25 to 60 (5x5 of 240
  channels on 4x28x28 6.5 -> 0.9 ms, of 1,152 on 4x7x7 5.4 -> 0.4).
- **One channel** (pictures of grey, tables of similarity): oneDNN's input gradient has 3 to 9 GFLOP/s. The filter's numbers
  times the gradient's planes, a product, are added up where they belong: 3x3 to 8 and 16 channels on 64x32x32 4.2 -> 0.9 and
  3.2 -> 0.9 ms, 5x5 to 64 on 16x28x28 5.0 -> 0.6, 7x7 with stride 2 to 32 on 8x32x32 1.1 -> 0.2.

Each function returns None where it does not apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from millstream.kernels import pair_products
from millstream.kernels.gemm import NARROW, product, product_of_rows, steady_product, zeros_at
from millstream.kernels.threads import cuts, numba_is_loaded, run_parts

_FEW, _FEW_HALF = 512, 2048  # pixels of the whole batch; in bfloat16
_WIDE = 32  # channels: narrower windows are slow to gather
_LARGE = 64  # channels on both sides of a large filter
_ONE_CHANNEL = 4  # filters
_MOST = 8 << 20  # numbers of all windows together, where those are made
_SMALL = 1 << 20  # numbers of a filter of which each thread may have a gradient of its own
_DEPTHWISE = 1 << 16  # elements from which numba is worth its import
_DEPTHWISE_WORK = 9 << 16  # multiplications
_backward = torch.ops.aten.convolution_backward.default

Ints = Sequence[int]


_FLOAT = (torch.float32,)
_BOTH = (torch.float32, torch.bfloat16)


def is_plain(dtypes: Sequence[torch.dtype], *tensors: torch.Tensor) -> bool:
    """Whether these are values (not stand-ins of a compiler) of one of `dtypes` that nothing differentiates."""
    dtype = tensors[0].dtype
    return (
        not torch.is_grad_enabled() and dtype in dtypes
        and all(type(t) is torch.Tensor and t.dtype is dtype and t.is_cpu for t in tensors)
    )  # fmt: skip


def _rows(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] as [N * H * W, C]; a view of a channels-last map."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(rows: torch.Tensor, n: int, height: int, width: int) -> torch.Tensor:
    return rows.view(n, height, width, -1).permute(0, 3, 1, 2)


# ---- pointwise -------------------------------------------------------------------------------------
def is_pointwise(x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, groups: int) -> bool:
    """Whether a convolution is a product here, and better so."""
    if groups != 1 or x.dim() != 4 or tuple(w.shape[2:]) != (1, 1) or any(paddings) or not is_plain(_BOTH, x):
        return False
    if x.dtype is torch.bfloat16:
        if not pair_products.takes(x.numel() * w.shape[0], x, parameter=w):
            return False
    elif not is_plain(_BOTH, x, w):
        return False
    return min(w.shape[:2]) >= NARROW and x.shape[0] * x.shape[2] * x.shape[3] > 1


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    found = pair_products.product(a, b) if a.dtype is torch.bfloat16 else None
    if found is not None:
        return found
    b = b.to(a.dtype)
    return product(a, b) if numba_is_loaded() else steady_product(a, b)


def _over_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    found = pair_products.product_of_rows(a, b) if a.dtype is torch.bfloat16 else None
    return product_of_rows(a, b) if found is None else found


def _taken(x: torch.Tensor, strides: Ints) -> torch.Tensor:
    return x if tuple(strides) == (1, 1) else x[:, :, :: strides[0], :: strides[1]]


def pointwise(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints) -> torch.Tensor:
    """Output of what :func:`is_pointwise`."""
    x = _taken(x, strides)
    out = _product(_rows(x), w.view(w.shape[:2]).t())
    return _map(out if bias is None else out.add_(bias), x.shape[0], *x.shape[2:])


def pointwise_backward(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, want: Sequence[bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """(dInput, dFilter, dBias)."""
    rows, taken = _rows(dout), _taken(x, strides)
    dx = dw = None
    if want[0]:
        found = _map(_product(rows, w.view(w.shape[:2])), x.shape[0], *dout.shape[2:])
        if taken is x:
            dx = found
        else:
            dx = torch.zeros_like(x)
            _taken(dx, strides).copy_(found)
    if want[1]:
        dw = _over_rows(rows, _rows(taken)).view(w.shape)
    return dx, dw, (rows.sum(0) if want[2] else None)


# ---- planes ----------------------------------------------------------------------------------------
def _fits_planes(x: torch.Tensor, w: torch.Tensor, pixels: int, groups: int) -> bool:
    return (
        groups == 1 and x.dim() == 4 and pixels <= _FEW and w.shape[2] * w.shape[3] > 1 and min(w.shape[:2]) >= _LARGE
        and is_plain(_FLOAT, x, w)
    )  # fmt: skip


def by_planes(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a large filter over few pixels."""
    if not _fits_planes(x, w, x.shape[0] * -(-x.shape[2] // strides[0]) * -(-x.shape[3] // strides[1]), groups):
        return None
    out = torch.convolution(x.contiguous(), w, bias, strides, paddings, dilations, False, [0, 0], 1)
    return out.contiguous(memory_format=torch.channels_last)


def by_planes_backward(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput of a large filter over few pixels."""
    if not _fits_planes(x, w, x.shape[0] * x.shape[2] * x.shape[3], groups) or not is_plain(_FLOAT, dout):
        return None
    given = dout.contiguous(), x.contiguous(), w
    dx = _backward(*given, None, strides, paddings, dilations, False, [0, 0], 1, [True, False, False])[0]
    return dx.contiguous(memory_format=torch.channels_last)


def _channel_rows(x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] as [C, N * H * W]."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


# ---- windows ---------------------------------------------------------------------------------------
def one_channel_backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput where the input has one channel."""
    if groups != 1 or x.dim() != 4 or x.shape[1] != 1 or x.dtype is not torch.float32 or not is_plain(_BOTH, x, w, dout):
        return None
    (n, channels), taps = dout.shape[:2], w.shape[2] * w.shape[3]
    if taps == 1 or channels < _ONE_CHANNEL or not 0 < taps * (dout.numel() // channels) <= _MOST:
        return None
    parts = torch.matmul(w.reshape(channels, taps).t(), dout.reshape(n, channels, -1))
    return F.fold(parts, x.shape[2:], w.shape[2:], tuple(dilations), tuple(paddings), tuple(strides))


def filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter of a convolution with a large filter, over few pixels or with a stride."""
    if groups != 1 or x.dim() != 4 or x.shape[1] < _WIDE or not is_plain(_BOTH, x, w, dout):
        return None
    n, (out_channels, channels, kh, kw), (height, width) = x.shape[0], w.shape, dout.shape[2:]
    pixels, few = n * height * width, _FEW if x.dtype is torch.float32 else _FEW_HALF
    if kh * kw == 1 or not (1 < pixels <= few or max(strides) > 1):
        return None
    if 4 * pixels <= out_channels and x.dtype is torch.float32:  # the order of what is large, the filters, decides
        windows = F.unfold(x.contiguous(), (kh, kw), tuple(dilations), tuple(paddings), tuple(strides))
        found = steady_product(_channel_rows(dout), windows.transpose(0, 1).reshape(-1, pixels).t())
        return found.view(w.shape)
    if pixels > _FEW and x.dtype is torch.float32 and channels % NARROW == 0:
        return _by_windows(x, w, dout, (strides, paddings, dilations))
    if pixels * kh * kw * channels > _MOST:
        return None
    padded = x.permute(0, 2, 3, 1)
    if any(paddings):
        padded = F.pad(padded, (0, 0, paddings[1], paddings[1], paddings[0], paddings[0]))
    steps = padded.stride()
    windows = padded.as_strided(
        (n, height, width, kh, kw, channels),
        (steps[0], steps[1] * strides[0], steps[2] * strides[1], steps[1] * dilations[0], steps[2] * dilations[1], 1),
        padded.storage_offset(),
    )
    found = _over_rows(_rows(dout), windows.reshape(pixels, -1))
    return found.view(out_channels, kh, kw, channels).permute(0, 3, 1, 2).contiguous()


def _by_windows(x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, form: tuple[Ints, Ints, Ints]) -> torch.Tensor:
    """dFilter by the kernel. Threads share the pixels; where filters are large, the filters, and gather windows twice."""
    from millstream.kernels import tiles, window_rows

    x, dout = (t.contiguous(memory_format=torch.channels_last) for t in (x, dout))
    (k, c, *kernel), pixels = w.shape, dout.numel() // dout.shape[1]
    work, depth = pixels * w.numel(), w[0].numel()
    if w.numel() <= _SMALL:
        ends, every = cuts(work, pixels), (0, k)
        out = x.new_empty(len(ends), k, depth)
        shares = [(e, every, out[i]) for i, e in enumerate(ends)]
    else:
        out = x.new_empty(1, k, depth)
        shares = [((0, pixels), e, out[0, e[0] : e[1]]) for e in cuts(work, k)]
    given = x.data_ptr(), (*x.shape[2:], c), dout.data_ptr(), (*dout.shape[2:], k), tuple(kernel), *(tuple(f) for f in form)
    rows, step = window_rows.room_of(depth)
    room = x.new_empty(len(shares), rows * step)
    run_parts(window_rows.filter_gradient, [
        (*given, e, filters, tiles.LANES, zeros_at(depth), room[i].data_ptr(), rows, step, made.data_ptr())
        for i, (e, filters, made) in enumerate(shares)
    ])  # fmt: skip
    return out.sum(0).view(k, *kernel, c).permute(0, 3, 1, 2).contiguous()


# ---- depthwise -------------------------------------------------------------------------------------
def _is_depthwise(x: torch.Tensor, w: torch.Tensor, groups: int) -> bool:
    return x.dim() == 4 and groups == x.shape[1] == w.shape[0] and w.shape[1] == 1


def _is_dilated(x: torch.Tensor, w: torch.Tensor, dilations: Ints, groups: int) -> bool:
    return max(dilations) > 1 and _is_depthwise(x, w, groups) and x.numel() >= _DEPTHWISE and is_plain(_FLOAT, x, w)


def _last(x: torch.Tensor) -> Any:
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def _filters(w: torch.Tensor) -> Any:
    return w.view(w.shape[0], *w.shape[2:]).permute(1, 2, 0).contiguous().numpy()


def _shape(strides: Ints, paddings: Ints, dilations: Ints) -> Any:
    return tuple(strides), tuple(paddings), tuple(dilations)


def depthwise(
    x: torch.Tensor, w: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """Output of a dilated depthwise convolution."""
    if not _is_dilated(x, w, dilations, groups):
        return None
    from millstream.kernels import depthwise as kernels

    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], w.shape[2:], strides, paddings, dilations)
    ]
    out = x.new_empty(x.shape[0], *sizes, x.shape[1])
    kernels.forward(_last(x), _filters(w), _shape(strides, paddings, dilations), out.numpy())
    return out.permute(0, 3, 1, 2)


def depthwise_backward_input(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dInput of a dilated depthwise convolution."""
    if not _is_dilated(x, w, dilations, groups) or not is_plain(_FLOAT, dout):
        return None
    from millstream.kernels import depthwise as kernels

    room = x.new_empty(x.shape[0], *x.shape[2:], x.shape[1])
    kernels.backward_input(_last(dout), _filters(w), _shape(strides, paddings, dilations), room.numpy())
    return room.permute(0, 3, 1, 2)


def depthwise_filter_gradient(
    x: torch.Tensor, w: torch.Tensor, dout: torch.Tensor, strides: Ints, paddings: Ints, dilations: Ints, groups: int
) -> torch.Tensor | None:
    """dFilter of a depthwise convolution, but for 3x3 filters without dilation."""
    if not _is_depthwise(x, w, groups) or not is_plain(_FLOAT, x, w, dout):
        return None
    kernel = w.shape[2], w.shape[3]
    if (kernel == (3, 3) and max(dilations) == 1) or dout.numel() * kernel[0] * kernel[1] < _DEPTHWISE_WORK:
        return None
    from millstream.kernels import depthwise as kernels

    found = kernels.backward_filter(_last(x), _last(dout), _shape(strides, paddings, dilations), kernel)
    return torch.from_numpy(found).to(w.dtype).permute(2, 0, 1).reshape(w.shape)
