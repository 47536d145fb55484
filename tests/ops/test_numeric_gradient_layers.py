"""Slopes in float64 of operators whose gradients the golden cases do not have: arrays, choices, fc, clip_by_norm."""

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers
STEP = 1e-6
RNG = np.random.RandomState(4)
WEIGHT = RNG.randn(4, 3).astype("float32")


def op(kind, inputs, attrs=None, slot="Out"):
    """One raw operator's output."""
    block = fluid.default_main_program().current_block()
    out = block.create_var(name=fluid.unique_name.generate("out"), dtype="float64")
    block.append_op(kind, inputs=inputs, outputs={slot: out}, attrs=attrs or {})
    return out


def array_round_trip(x):
    array = L.array_write(x * x, L.fill_constant([1], "int64", 0))
    array = L.array_write(L.sin(x), L.fill_constant([1], "int64", 1), array)
    return L.array_read(array, L.fill_constant([1], "int64", 0)) * L.array_read(array, L.fill_constant([1], "int64", 1))


def joined_array(x):
    array = L.array_write(x * x, L.fill_constant([1], "int64", 0))
    array = L.array_write(L.sin(x), L.fill_constant([1], "int64", 1), array)
    return L.tensor_array_to_tensor(array, axis=1)[0]


def chosen(x):
    return L.cond(L.less_than(L.reduce_sum(x), L.fill_constant([1], "float64", 1e9)), lambda: x * x, lambda: L.sin(x))


FORMS = {
    "fc": lambda x: op("fc", {"Input": x, "W": L.cast(L.assign(WEIGHT), "float64")}, {"in_num_col_dims": 1}),
    "clip_by_norm": lambda x: L.clip_by_norm(x, 0.7),
    "write_to_array, read_from_array": array_round_trip,
    "tensor_array_to_tensor": joined_array,
    "select_input": chosen,
}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_gradient_is_the_slope(name):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.data("x", [3, 4], "float64")
        x.stop_gradient = False
        out = FORMS[name](x)
        total = L.reduce_sum(out * out)
        (grad,) = fluid.gradients([total], [x])
    exe, scope, values = fluid.Executor(), fluid.Scope(), RNG.rand(3, 4) + 0.1

    def run(values, fetch):
        with fluid.scope_guard(scope):
            return exe.run(main, feed={"x": values}, fetch_list=[fetch])[0]

    with fluid.scope_guard(scope):
        exe.run(startup)
    slopes = np.zeros_like(values)
    for at in np.ndindex(*values.shape):
        up, down = values.copy(), values.copy()
        up[at] += STEP
        down[at] -= STEP
        slopes[at] = (run(up, total).item() - run(down, total).item()) / (2 * STEP)
    np.testing.assert_allclose(run(values, grad), slopes, rtol=1e-5, atol=1e-6)
