"""What fetches return behaves as numpy arrays did when Fluid programs were written."""

import copy
import pickle

import numpy as np
import pytest

import millstream.fluid as fluid


@pytest.fixture
def loss():
    x = fluid.layers.data("x", [2])
    return fluid.Executor().run(feed={"x": np.ones((3, 2), "float32")}, fetch_list=[fluid.layers.mean(x)])[0]


def test_one_element_converts_whatever_the_shape(loss):
    assert loss.shape == (1,)
    assert float(loss) == 1.0 and int(loss) == 1 and float(loss * 2) == 2.0
    assert "%.2f" % loss == "1.00"  # noqa: UP031  (how programs of Fluid's time print)
    with pytest.raises((TypeError, ValueError)):
        float(np.ones(2).view(type(loss)))


def test_otherwise_a_plain_array(loss):
    assert isinstance(loss, np.ndarray) and repr(loss) == "array([1.], dtype=float32)"
    assert type(pickle.loads(pickle.dumps(loss))) is np.ndarray
    np.testing.assert_array_equal(copy.deepcopy(loss), loss)
