"""What fetches return behaves as numpy arrays did when Fluid programs were written."""

import numpy as np
import pytest

import millstream.fluid as fluid


@pytest.fixture
def loss():
    x = fluid.layers.data("x", [2])
    return fluid.Executor().run(feed={"x": np.ones((3, 2), "float32")}, fetch_list=[fluid.layers.mean(x)])[0]


@pytest.mark.filterwarnings("ignore:Conversion of an array")
def test_one_element_converts_whatever_the_shape(loss):
    assert loss.shape == (1,)
    assert float(loss) == 1.0 and int(loss) == 1 and float(loss * 2) == 2.0
    assert "%.2f" % loss == "1.00"  # noqa: UP031  (how programs of Fluid's time print)


def test_a_plain_array_whose_sums_are_numbers(loss):
    assert type(loss) is np.ndarray and repr(loss) == "array([1.], dtype=float32)"
    assert type(loss.mean()) is np.float32 and {loss.sum(): 1} and isinstance(np.max(loss), np.floating)


def test_int64_prints_with_its_type_as_from_fluid(loss):
    x = fluid.layers.data("i", [1], dtype="int64")
    tensor = fluid.create_lod_tensor(np.array([[3]]), [[1]], fluid.CPUPlace())
    fetched = fluid.Executor().run(feed={"i": np.array([[3]]), "x": np.ones((1, 2), "float32")}, fetch_list=[x])[0]
    with fluid.dygraph.guard():
        eager = fluid.dygraph.to_variable(np.array([[3]])).numpy()
    for a in (fetched, eager, np.array(tensor)):
        assert repr(a) == "array([[3]], dtype=int64)" and a.dtype == np.int64
