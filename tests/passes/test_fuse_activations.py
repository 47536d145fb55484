"""Activations and plain arithmetic written out: what is put in their place gives the same numbers."""

import math

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream import passes

L = fluid.layers
ROOT = math.sqrt(2.0)
TWO = fluid.initializer.Constant(2.0)


def swish(x):
    return x * L.sigmoid(x)


FORMS = {
    "gelu, half of x first": ("gelu", lambda x: x * 0.5 * (1.0 + L.erf(x / ROOT))),
    "gelu, 1 added last": ("gelu", lambda x: 0.5 * x * (L.erf(L.scale(x, 1 / ROOT)) + 1.0)),
    "gelu, by the distribution": ("gelu", lambda x: x * (0.5 * (1.0 + L.erf(x / ROOT)))),
    "gelu, half last": ("gelu", lambda x: 0.5 * (x * (1.0 + L.erf(x / ROOT)))),
    "gelu, by tanh": ("gelu", lambda x: 0.5 * x * (1.0 + L.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * L.pow(x, 3.0))))),
    "swish": ("swish", swish),
    "swish, the other way round": ("swish", lambda x: L.sigmoid(x) * x),
    "hard_swish": ("hard_swish", lambda x: x * L.relu6(x + 3.0) / 6.0),
    "hard_swish, the gate divided": ("hard_swish", lambda x: x * (L.relu6(x + 3.0) / 6.0)),
    "hard_swish, by hard_sigmoid": ("hard_swish", lambda x: x * L.hard_sigmoid(x, 1 / 6, 0.5)),
    "square": ("square", lambda x: L.pow(x, 2.0)),
    "sqrt": ("sqrt", lambda x: L.pow(L.abs(x), 0.5)),
    "a sum of two": ("elementwise_add", lambda x: L.sums([x, L.abs(x)])),
    "a stored number": ("scale", lambda x: x / L.create_parameter([1], "float32", default_initializer=TWO)),
}
NAMES = ["fold_constants", "simplify_arithmetic", "fuse_activations", "remove_dead"]


def optimised(build, names=NAMES):
    """(Work, largest difference, operator types after)."""
    main, startup = fluid.Program(), fluid.Program()
    scope = fluid.Scope()
    with fluid.program_guard(main, startup), fluid.scope_guard(scope):
        y = build(fluid.data("x", [None, 5]))
        exe = fluid.Executor()
        exe.run(startup)
        work = passes.optimize(main, ["x"], [y.name], lambda n: scope.find_var(n).load()[0], names, check=True)
        feed = {"x": np.random.randn(4, 5).astype("float32") * 3}
        before, after = (exe.run(p, feed=feed, fetch_list=[y.name])[0] for p in (main, work.program))
    return work, float(np.abs(before - after).max()), [op.type for op in work.program.global_block().ops]


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    kind, build = FORMS[form]
    work, gap, types = optimised(build)
    assert gap <= 1e-5 and kind in types, (gap, types)
    fired = "fuse_activations" if kind in ("gelu", "swish", "hard_swish") else "simplify_arithmetic"
    assert work.counts()[fired] == 1
    if fired == "fuse_activations":
        assert types == [kind]


OTHERS = {
    "another factor": lambda x: x * 0.4 * (1.0 + L.erf(x / ROOT)),
    "another threshold": lambda x: x * L.relu6(x + 3.0, threshold=5.0) / 6.0,
    "another slope": lambda x: x * L.hard_sigmoid(x, 0.2, 0.5),
    "two values": lambda x: L.abs(x) * L.sigmoid(x),
    "another power": lambda x: 0.5 * x * (1.0 + L.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * L.pow(x, 5.0)))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_something_else_stays(name):
    work, gap, types = optimised(OTHERS[name])
    assert gap <= 1e-5 and "fuse_activations" not in work.counts() and not {"gelu", "swish", "hard_swish"} & set(types)


def test_what_is_read_elsewhere_stays():
    def build(x):
        gate = L.sigmoid(x)
        return x * gate + gate

    assert "fuse_activations" not in optimised(build)[0].counts()


def test_gradients_stay():
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()):
        x = fluid.data("x", [None, 5])
        x.stop_gradient = False
        loss = L.reduce_sum(swish(L.pow(x, 2.0)))
        fluid.backward.append_backward(loss)
    work = passes.optimize(main, ["x"], [loss.name, "x@GRAD"], None, NAMES)
    assert "fuse_activations" not in work.counts()
    assert {"pow", "pow_grad", "sigmoid", "sigmoid_grad"} <= {op.type for op in work.program.global_block().ops}
