"""Attention over heads of bfloat16 in register tiles, against float64; what the kernels do not take goes another way."""

import pytest
import torch

from millstream.kernels import attention, pairs
from millstream.ops import REGISTRY

pytest.importorskip("numba")
if not pairs.available():
    pytest.skip("the processor multiplies no pairs of bfloat16", allow_module_level=True)
LAYER, BACK = (REGISTRY.get(name).kernel for name in ("attention_layer", "attention_layer_grad"))
MASKS = {
    "none": lambda b, h, t, s: None,
    "a matrix": lambda b, h, t, s: torch.randn(t, s).bfloat16(),
    "padding": lambda b, h, t, s: (torch.rand(b, 1, 1, s) < 0.3).bfloat16() * -1e9,
    "whole": lambda b, h, t, s: torch.randn(b, h, t, s).bfloat16(),
    "of heads": lambda b, h, t, s: torch.randn(h, 1, s).bfloat16(),
    "one column": lambda b, h, t, s: torch.randn(b, 1, t, 1).bfloat16(),
}


@pytest.fixture(autouse=True)
def kernels():
    """As a Plan calls them."""
    with torch.no_grad():
        yield


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def operands(batch, heads, queries, keys, width, values, joined):
    """q, k, v and the gradient of the result; `joined`: heads lie side by side in rows."""

    def rows(count, size):
        if joined:
            return torch.randn(batch, count, heads, size).bfloat16().transpose(1, 2)
        return torch.randn(batch, heads, count, size).bfloat16()

    return rows(queries, width), rows(keys, width), rows(keys, values), rows(queries, values)


def expected(q, k, v, mask, dout, scale):
    leaves = [t.detach().double().requires_grad_() for t in (q, k, v)]
    with torch.enable_grad():
        scores = scale * leaves[0] @ leaves[1].transpose(-1, -2)
        weights = torch.softmax(scores if mask is None else scores + mask.double(), -1)
        out = weights @ leaves[2]
        out.backward(dout.double())
    return [out.detach(), weights.detach(), *(leaf.grad for leaf in leaves)]


def found(q, k, v, mask, dout, scale):
    out, weights = LAYER(q, k, v, mask, scale=scale)
    return [out, weights, *BACK(q, k, v, weights, dout, scale=scale, want=(True, True, True))]


def check(got, wanted, share=1e-2):
    for one, other in zip(got, wanted):
        assert one.dtype is torch.bfloat16 and one.shape == other.shape
        size = other.abs().max()
        torch.testing.assert_close(one.double() / size, other / size, rtol=0, atol=share)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("sizes", [(8, 4, 44, 48, 64, 64), (3, 2, 97, 75, 32, 96), (2, 1, 130, 200, 64, 32)])
def test_against_float64(sizes, joined, mask, threads):
    q, k, v, dout = operands(*sizes, joined)
    given = MASKS[mask](*sizes[:4])
    taken = attention.forward(q, k, v, given, 0.125)
    assert (taken is None) == (mask == "one column")
    share = 3e-2 if taken is None else 1e-2  # there scores are rounded, too
    check(found(q, k, v, given, dout, 0.125), expected(q, k, v, given, dout, 0.125), share)


def test_three_dims_and_rows_that_are_not_side_by_side():
    q, k, v, dout = (t.reshape(32, *t.shape[2:]) for t in operands(8, 4, 44, 48, 64, 64, False))
    q, dout = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, dout))
    mask = torch.randn(32, 1, 48).bfloat16()
    assert attention.forward(q, k, v, mask, 1.0) is not None
    check(found(q, k, v, mask, dout, 0.3), expected(q, k, v, mask, dout, 0.3))


@pytest.mark.parametrize("sizes", [(8, 4, 44, 48, 48, 64), (1, 1, 4, 5, 32, 32)])
def test_others_go_another_way(sizes):
    q, k, v, dout = operands(*sizes, True)
    assert attention.forward(q, k, v, None, 1.0) is None
    check(found(q, k, v, None, dout, 0.2), expected(q, k, v, None, dout, 0.2), 3e-2)


def test_weights_of_another_origin():
    """They may lack what the kernel's own rows are made up with."""
    q, k, v, dout = operands(4, 4, 44, 44, 64, 64, True)
    weights = LAYER(q, k, v, None, scale=0.125)[1]
    wanted = BACK(q, k, v, weights, dout, scale=0.125, want=(True, True, True))
    got = BACK(q, k, v, weights.contiguous(), dout, scale=0.125, want=(True, True, True))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted))


def test_not_finite_numbers_stay_in_their_rows():
    q, k, v, _ = operands(2, 4, 64, 64, 64, 64, True)
    q[1, 2, 3, 5] = float("nan")
    out, weights = LAYER(q, k, v, None, scale=0.125)
    lost = torch.zeros(2, 4, 64, dtype=torch.bool)
    lost[1, 2, 3] = True
    for t in (out, weights):
        assert t[lost].isnan().all() and t[~lost].isfinite().all()


def test_what_a_mask_takes_out_counts_as_64_below_the_greatest():
    q, k, v, _ = operands(2, 4, 64, 64, 64, 64, True)
    mask = torch.zeros(64).bfloat16()
    mask[7:] = -1e9
    weights = LAYER(q, k, v, mask, scale=0.125)[1]
    assert 0 < weights[..., 7:].max() < 1e-27 and weights[..., :7].sum(-1).sub(1).abs().max() < 2e-2
