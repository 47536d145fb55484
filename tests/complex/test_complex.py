"""Complex variables against numpy."""

import numpy as np
import pytest

import millstream.complex as C
import millstream.fluid as fluid
from millstream.complex.helper import is_complex, is_real

A, B = ((r := np.random.RandomState(k)).rand(2, 3) + 1j * r.rand(2, 3) for k in range(2))
A, B = A.astype("complex64"), B.astype("complex64")

CASES = {
    "add": (lambda x, y, z: C.elementwise_add(x, y), A + B),
    "add real": (lambda x, y, z: C.elementwise_add(z, x), A.real + A),
    "sub": (lambda x, y, z: C.elementwise_sub(x, z), A - A.real),
    "sub from real": (lambda x, y, z: C.elementwise_sub(z, y), A.real - B),
    "mul": (lambda x, y, z: C.elementwise_mul(x, y), A * B),
    "mul real": (lambda x, y, z: C.elementwise_mul(z, y), A.real * B),
    "div": (lambda x, y, z: C.elementwise_div(x, y), A / B),
    "div real": (lambda x, y, z: C.elementwise_div(x, z), A / A.real),
    "kron": (lambda x, y, z: C.kron(x, y), np.kron(A, B)),
    "trace": (lambda x, y, z: C.trace(x, offset=1), np.trace(A, 1).reshape(1)),
    "sum": (lambda x, y, z: C.sum(x, dim=1, keep_dim=True), A.sum(1, keepdims=True)),
    "reshape": (lambda x, y, z: C.reshape(x, [3, -1]), A.reshape(3, 2)),
    "transpose": (lambda x, y, z: C.transpose(x, [1, 0]), A.T),
    "matmul": (lambda x, y, z: C.matmul(x, y, transpose_y=True), A @ B.T),
    "matmul real": (lambda x, y, z: C.matmul(z, x, transpose_x=True, alpha=2.0), 2 * A.real.T @ A),
}


@pytest.mark.parametrize("name", CASES)
def test_functions(name):
    function, expected = CASES[name]
    with fluid.dygraph.guard():
        out = function(*map(fluid.dygraph.to_variable, (A, B, A.real.copy())))
        np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert out.dtype == "complex64"


def test_complex_variables():
    with fluid.dygraph.guard():
        x = fluid.dygraph.to_variable(A)
        assert x.shape == [2, 3] and x.name == {"real": "_generated_var_0.real", "imag": "_generated_var_0.imag"}
        assert is_complex(x) and not is_real(x) and is_real(x.real) and str(x).startswith("REAL: name _generated_var_0.real")
        assert fluid.dygraph.to_variable(A.astype("complex128")).dtype == "complex128"
        with pytest.raises(ValueError, match="must be ComplexVariable"):
            C.sum(x.real)
        with pytest.raises(ValueError, match="must be alike"):
            fluid.framework.ComplexVariable(x.real, fluid.layers.cast(x.imag, "float64"))


def test_gradients_flow_through_the_parts():
    with fluid.dygraph.guard():
        x = fluid.dygraph.to_variable(A)
        x.real.stop_gradient = x.imag.stop_gradient = False
        fluid.layers.reduce_sum(C.elementwise_mul(x, x).real).backward()
        np.testing.assert_allclose(x.imag.gradient(), -2 * A.imag, rtol=1e-5)


def test_in_a_program():
    real, imag = (fluid.data(n, [None, 3]) for n in ("real", "imag"))
    x = fluid.framework.ComplexVariable(real, imag)
    out = C.matmul(x, x, transpose_y=True)
    got = fluid.Executor(fluid.CPUPlace()).run(feed={"real": A.real, "imag": A.imag}, fetch_list=[out.real, out.imag])
    np.testing.assert_allclose(got[0] + 1j * got[1], A @ A.T, rtol=1e-5)
