"""Gradients of linear interpolation in large images against the derivative of the operator's own output in float64."""

import pytest
import torch

from millstream.ops._opdef import REGISTRY

SIZES = {
    "larger": ((2, 5, 9, 12), (70, 101)),
    "smaller": ((1, 3, 210, 190), (151, 153)),
    "one row": ((1, 40, 1, 17), (33, 55)),
    "narrow": ((1, 1, 40, 7), (300, 223)),
}


def check(operator, size, target, last, **attrs):
    layout = ("NDHWC" if len(size) == 5 else "NHWC") if last else "NCHW"
    x = torch.randn(size)
    given = x.movedim(1, -1) if last else x
    names = ("out_d", "out_h", "out_w")[-len(target) :]
    leaf = given.double().requires_grad_()
    kernel = REGISTRY.get(operator).kernel
    wanted = kernel(leaf, None, [], None, data_layout=layout, **dict(zip(names, target)), **attrs)
    dout = torch.randn(wanted.shape)
    wanted.backward(dout.double())
    with torch.no_grad():
        for order in (dout, dout.to(memory_format=torch.channels_last) if dout.dim() == 4 else dout):
            found = REGISTRY.get(operator + "_grad").kernel(given, None, [], None, order, data_layout=layout, **attrs)
            assert found.shape == given.shape
            scale = leaf.grad.abs().max()
            assert (found.double() - leaf.grad).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", [(True, 1), (False, 0), (False, 1)])
@pytest.mark.parametrize("size", SIZES)
def test_bilinear(size, mode, threads):
    held = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for last in (False, True):
            check("bilinear_interp", *SIZES[size], last, interp_method="bilinear", align_corners=mode[0], align_mode=mode[1])
    finally:
        torch.set_num_threads(held)


@pytest.mark.parametrize("mode", [(True, 1), (False, 0), (False, 1)])
def test_trilinear(mode):
    for last in (False, True):
        attrs = {"interp_method": "trilinear", "align_corners": mode[0], "align_mode": mode[1]}
        check("trilinear_interp", (1, 4, 5, 8, 7), (23, 31, 29), last, **attrs)


def test_double_and_half():
    grad = REGISTRY.get("bilinear_interp_grad").kernel
    with torch.no_grad():
        for dtype, limit in ((torch.float64, 1e-12), (torch.bfloat16, 5e-2)):
            x, dout = torch.randn(1, 4, 20, 20, dtype=dtype), torch.randn(1, 4, 140, 140, dtype=dtype)
            found = grad(x, None, [], None, dout, interp_method="bilinear", align_corners=True)
            backward = torch.ops.aten.upsample_bilinear2d_backward.default
            wanted = backward(dout.double(), [140, 140], [1, 4, 20, 20], True, None, None)
            assert found.dtype is dtype and (found.double() - wanted).abs().max() < limit * wanted.abs().max()
