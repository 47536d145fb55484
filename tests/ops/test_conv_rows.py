"""Convolutions that are products over rows, or kernels, against torch's own."""

import pytest
import torch

from millstream.kernels import pair_products
from millstream.ops._opdef import REGISTRY
from millstream.ops.nn import _conv_rows

# (input, filters, attributes): few pixels, a stride, dilated channels of their own, one thread
CASES = {
    "pointwise": ((2, 64, 7, 7), (96, 64, 1, 1), {}),
    "pointwise, stride": ((2, 64, 13, 14), (160, 64, 1, 1), {"strides": [2, 2]}),
    "pointwise, many pixels": ((1, 40, 66, 65), (24, 40, 1, 1), {}),
    "pointwise, many pixels, stride": ((2, 33, 93, 94), (19, 33, 1, 1), {"strides": [2, 1]}),
    "pointwise, some pixels": ((2, 24, 25, 24), (48, 24, 1, 1), {"strides": [1, 2]}),
    "planes": ((1, 64, 5, 4), (96, 64, 3, 3), {"paddings": [1, 1]}),
    "planes, stride, dilation": (
        (2, 72, 13, 12),
        (64, 72, 3, 2),
        {"paddings": [2, 1], "strides": [2, 1], "dilations": [2, 1]},
    ),
    "planes of few windows": ((1, 64, 4, 3), (192, 64, 3, 3), {"paddings": [1, 0], "strides": [1, 2]}),
    "few pixels": ((2, 64, 7, 6), (96, 64, 3, 3), {"paddings": [1, 1]}),
    "stride": ((1, 32, 41, 40), (48, 32, 3, 3), {"paddings": [1, 1], "strides": [2, 2]}),
    "stride, dilation": ((1, 32, 41, 40), (48, 32, 3, 2), {"paddings": [2, 1], "strides": [2, 1], "dilations": [2, 1]}),
    "stride, many pixels": ((2, 48, 61, 58), (40, 48, 3, 3), {"paddings": [1, 1], "strides": [2, 2]}),
    "stride, even filters": ((3, 32, 41, 40), (48, 32, 4, 2), {"paddings": [2, 1], "strides": [1, 2], "dilations": [1, 3]}),
    "stride, many pixels, large filter": ((1, 512, 50, 48), (256, 512, 3, 3), {"paddings": [1, 1], "strides": [2, 2]}),
    "depthwise": ((2, 48, 33, 32), (48, 1, 3, 3), {"paddings": [2, 2], "dilations": [2, 2], "groups": 48}),
    "depthwise, large filter": ((2, 50, 27, 28), (50, 1, 5, 5), {"paddings": [2, 2], "groups": 50}),
    "depthwise, stride, few channels": ((2, 7, 91, 93), (7, 1, 7, 4), {"paddings": [3, 1], "strides": [2, 3], "groups": 7}),
    "depthwise, few pixels": ((9, 72, 7, 7), (72, 1, 5, 5), {"paddings": [2, 2], "groups": 72}),
    "window at the rim": ((2, 48, 33, 32), (48, 1, 3, 3), {"paddings": [30, 2], "dilations": [30, 2], "groups": 48}),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_numbers(case, threads):
    size, filters, attrs = CASES[case]
    held = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, w, bias = torch.randn(size), torch.randn(filters), torch.randn(filters[0])
        given = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1, **attrs}
        fused = {**given, "use_mkldnn": True}
        leaves = [t.double().requires_grad_() for t in (x, w, bias)]
        wanted = torch.conv2d(*leaves, given["strides"], given["paddings"], given["dilations"], given["groups"])
        dout = torch.randn(wanted.shape)
        wanted.backward(dout.double())
        with torch.no_grad():
            for bias_or_none, bias_wanted in ((bias, True), (None, False)):
                out = REGISTRY.get("conv2d").kernel(x, w, bias_or_none, None, **fused)
                less = 0 if bias_or_none is not None else bias.double()[:, None, None]
                torch.testing.assert_close(out.double(), wanted.detach() - less, rtol=1e-4, atol=1e-3)
                found = REGISTRY.get("conv2d_grad").kernel(x, w, bias_or_none, dout, want=(True, True, bias_wanted), **fused)
                for mine, leaf in zip(found, leaves if bias_wanted else leaves[:2]):
                    assert mine.shape == leaf.shape
                    torch.testing.assert_close(mine.double(), leaf.grad, rtol=1e-4, atol=2e-3)
                assert found[1].is_contiguous()
            for want in ((True, False, False), (False, True, False)):
                found = REGISTRY.get("conv2d_grad").kernel(x, w, None, dout, want=want, **fused)
                for mine, leaf, wanted_one in zip(found, leaves[:2], want):
                    if wanted_one:
                        torch.testing.assert_close(mine.double(), leaf.grad, rtol=1e-4, atol=2e-3)
    finally:
        torch.set_num_threads(held)


@pytest.mark.parametrize("case", ["stride, many pixels", "depthwise", "pointwise", "3x3"])
def test_torch_s_default_dtype_changes_nothing(case):
    size, filters, attrs = {**CASES, "3x3": ((2, 64, 28, 28), (64, 64, 3, 3), {"paddings": [1, 1]})}[case]
    x, w = torch.randn(size), torch.randn(filters)
    given = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1, **attrs}
    found, before = [], torch.get_default_dtype()
    try:
        for default in (torch.float32, torch.float64):
            torch.set_default_dtype(default)
            with torch.no_grad():
                out = REGISTRY.get("conv2d").kernel(x, w, None, None, **given)
                dout = torch.ones_like(out)
                dx, dw, _ = REGISTRY.get("conv2d_grad").kernel(x, w, None, dout, want=(True, True, False), **given)
                found.append((out, dx, dw))
    finally:
        torch.set_default_dtype(before)
    for expected, got in zip(*found):
        assert got.dtype is torch.float32
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("case", ["pointwise", "3x3", "product"])
def test_bfloat16_without_products_of_pairs(case, monkeypatch):
    """A processor that has no such instructions: torch's own kernels do the work."""
    monkeypatch.setattr(pair_products, "tiles", lambda: None)
    monkeypatch.setattr(pair_products, "_LEAST", 0)
    with torch.no_grad():
        if case == "product":
            x, w = torch.randn(96, 64), torch.randn(64, 48)
            assert pair_products.product(x.bfloat16(), w.bfloat16()) is None
            out, expected = REGISTRY.get("mul").kernel(x.bfloat16(), w.bfloat16()), x @ w
        else:
            x, w = torch.randn(2, 64, 28, 28), torch.randn(64, 64, *((3, 3) if case == "3x3" else (1, 1)))
            given = {"strides": [1, 1], "paddings": [w.shape[2] // 2] * 2, "dilations": [1, 1], "groups": 1}
            near, expected = (x.bfloat16(), w.bfloat16()), torch.conv2d(x, w, padding=w.shape[2] // 2)
            out = REGISTRY.get("conv2d").kernel(*near, None, None, **given)
            found = REGISTRY.get("conv2d_grad").kernel(*near, None, torch.ones_like(out), want=(True, True, False), **given)
            ones = torch.ones_like(expected)
            torch.testing.assert_close(
                found[1].float(), torch.nn.grad.conv2d_weight(x, w.shape, ones, padding=w.shape[2] // 2), rtol=2e-2, atol=2.0
            )
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("filters", "size", "strides", "paddings", "dilations"),
    [(8, (3, 3), (1, 1), (0, 0), (1, 1)), (5, (2, 5), (2, 1), (1, 2), (1, 1)), (16, (3, 3), (2, 2), (3, 1), (2, 1))],
)
@torch.no_grad()
def test_input_gradient_of_one_channel(filters, size, strides, paddings, dilations, last):
    torch.manual_seed(0)
    x, w = torch.randn(3, 1, 13, 11), torch.randn(filters, 1, *size)
    form = (list(strides), list(paddings), list(dilations))
    y = torch.nn.functional.conv2d(x, w, None, *form)
    dout = torch.randn_like(y).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    found = _conv_rows.one_channel_backward_input(x, w, dout, *form, 1)
    expected = torch.nn.grad.conv2d_input(x.shape, w, dout, *form)
    assert found.shape == x.shape and torch.allclose(found, expected, atol=1e-4)
    assert _conv_rows.one_channel_backward_input(x[:0], w, dout[:0], *form, 1) is None
