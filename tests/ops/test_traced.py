"""Operators with a `traced` form: results and gradients are those of the kernels, or it leaves the call to them."""

import numpy as np
import pytest
import torch

from millstream.ops import REGISTRY
from millstream.ops._grad import as_tuple
from millstream.ops._plain import Plain

R = np.random.RandomState(3)


def f(*shape):
    return torch.from_numpy(R.randn(*shape))


def ids(*shape):
    return torch.from_numpy(R.randint(0, 5, shape))


LAYER = f(3, 2, 4), f(4, 5), f(5)
# name -> (operator, operands, attributes, which output is differentiated)
CALLS = {
    "layer": ("dense_layer", LAYER, {"rows": 2}, 0),
    "layer of a matrix": ("dense_layer", (f(6, 4), *LAYER[1:]), {"rows": 1}, 0),
    **{f"layer, {act}": ("dense_layer", LAYER, {"rows": 2, "activation": act}, 0) for act in ("relu", "tanh", "sigmoid")},
    "loss of a softmax": ("softmax_with_cross_entropy", (f(4, 5), ids(4, 1)), {}, 1),
    "loss of a softmax of three dims": ("softmax_with_cross_entropy", (f(2, 3, 5), ids(2, 3, 1)), {"axis": 2}, 1),
    "loss": ("cross_entropy2", (torch.softmax(f(4, 5), 1), ids(4, 1)), {}, 0),
    "loss, labels without a dim": ("cross_entropy2", (torch.softmax(f(4, 5), 1), ids(4)), {}, 0),
}
LEFT = {
    "a large layer": ("dense_layer", (f(200, 60), f(60, 50), f(50)), {"rows": 1}),
    "soft labels": ("softmax_with_cross_entropy", (f(4, 5), torch.softmax(f(4, 5), 1)), {"soft_label": True}),
    "another axis": ("softmax_with_cross_entropy", (f(5, 4), ids(1, 4)), {"axis": 0}),
    "labels that may be ignored": ("softmax_with_cross_entropy", (f(4, 5), ids(4, 1)), {"ignore_index": 2}),
    "an ignored label": ("softmax_with_cross_entropy", (f(2, 5), torch.tensor([[1], [-100]])), {}),
    "a label outside": ("cross_entropy2", (torch.softmax(f(2, 5), 1), torch.tensor([[1], [9]])), {}),
    "a logit far below": ("softmax_with_cross_entropy", (torch.tensor([[0.0, 90.0]]), torch.tensor([[0]])), {}),
    "NaN": ("softmax_with_cross_entropy", (torch.tensor([[0.0, np.nan]]), torch.tensor([[0]])), {}),
    "a probability of zero": ("cross_entropy2", (torch.tensor([[0.0, 1.0]]), torch.tensor([[0]])), {}),
    "many scores": ("softmax_with_cross_entropy", (f(1000, 5), ids(1000, 1)), {}),
}


def leaves(operands):
    return [t.clone().requires_grad_() if t.is_floating_point() else t for t in operands]


@pytest.mark.parametrize("name", CALLS)
def test_as_the_kernels(name):
    op, operands, attrs, k = CALLS[name]
    forward = REGISTRY.get(op)
    kwargs = {**forward.kernel_attrs({}), **attrs}
    seed, found = None, []
    for call in (forward.extra["traced"], lambda *a, **kw: Plain.of(forward, REGISTRY.get(forward.grad_type), False)(a, kw)):
        given = leaves(operands)
        outs = as_tuple(call(*given, **kwargs))
        seed = torch.rand_like(outs[k]) if seed is None else seed
        wanted = [t for t in given if t.requires_grad]
        found.append([*(o.detach() for o in outs if o is not None), *torch.autograd.grad(outs[k], wanted, seed)])
    for mine, kernels in zip(*found):
        assert mine.shape == kernels.shape and mine.dtype is kernels.dtype
        np.testing.assert_allclose(mine, kernels, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_the_kernels(name):
    op, operands, attrs = LEFT[name]
    forward = REGISTRY.get(op)
    assert forward.extra["traced"](*leaves(operands), **{**forward.kernel_attrs({}), **attrs}) is None
