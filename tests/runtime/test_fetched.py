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
