"""Updates that read gradients of bfloat16 themselves against torch's one-pass kernels with the same gradients in float32."""

import pytest
import torch

from millstream.kernels.threads import run_many
from millstream.ops._opdef import REGISTRY

_CASES = {
    "sgd": ((), {"weight_decay": 0.1}),
    "momentum": (("velocity",), {"mu": 0.9, "weight_decay": 0.1}),
    "momentum, nesterov": (("velocity",), {"mu": 0.9, "use_nesterov": True}),
    "adam": (("moment1", "moment2"), {"beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "weight_decay": 0.01}),
}


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", _CASES)
def test_large_parameters(case, threads, monkeypatch):
    kind, (state, attrs) = case.split(",")[0], _CASES[case]
    import numba  # noqa: F401  nothing loads it for an update alone

    met = []
    monkeypatch.setattr("millstream.ops.optim._onepass._PART", 100_000)
    monkeypatch.setattr(
        "millstream.ops.optim._onepass.run_many",
        lambda kernel, calls: met.extend(call[-2:] for call in calls) or run_many(kernel, calls),
    )  # fmt: skip
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sizes = [(700, 900), (16,), (33, 1001)]
        grads = [torch.randn(s).bfloat16() for s in sizes]
        columns = [[torch.rand(s) for s in sizes] for _ in range(1 + len(state))]
        copies = [[t.clone() for t in column] for column in columns]
        rate = torch.tensor([0.3])
        operator = REGISTRY.get("fused_" + kind).kernel
        for given, gradients in ((columns, grads), (copies, [g.float() for g in grads])):
            rest = given[1:]
            powers = [[torch.tensor([0.5]) for _ in sizes] for _ in range(2)]  # multiplied in place
            order = (rate, *rest, *powers) if kind == "adam" else (*rest, rate)
            operator(given[0], gradients, *order, **attrs)
        assert {ends[1] for ends in met} >= {700 * 900, 33 * 1001} and len(met) == 8
        for mine, others in zip(columns, copies):
            for a, b in zip(mine, others):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    finally:
        torch.set_num_threads(before)


def test_softmax_of_short_and_long_rows():
    for width in (5, 600):
        x = (torch.randn(7, width) * 30).bfloat16()
        out = REGISTRY.get("softmax").kernel(x)
        assert out.dtype is torch.bfloat16
        torch.testing.assert_close(out.double(), torch.softmax(x.double(), -1), rtol=1e-2, atol=1e-6)
