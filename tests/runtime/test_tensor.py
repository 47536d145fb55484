import numpy as np
import pytest

from millstream import fluid


def test_the_text_of_a_tensor_is_that_of_1_8_5():
    t = fluid.create_lod_tensor(np.arange(6).reshape(6, 1).astype("int64"), [[2, 1], [1, 1, 4]], fluid.CPUPlace())
    assert str(t) == "\tlod: {{0, 2, 3}{0, 1, 2, 6}}\n\tdim: 6, 1\n\tlayout: NCHW\n\tdtype: int64_t\n\tdata: [0 1 2 3 4 5]\n"
    t = fluid.LoDTensor()
    t.set(np.array([[1, 2.5, 1e-9, 1e10, 3.14159265]], "float32"), fluid.CPUPlace())
    assert str(t) == "\tlod: {}\n\tdim: 1, 5\n\tlayout: NCHW\n\tdtype: float\n\tdata: [1 2.5 1e-09 1e+10 3.14159]\n"


def test_a_misspelt_switch_is_refused():
    strategy = fluid.BuildStrategy()
    strategy.memory_optimize = True
    strategy.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
    with pytest.raises(AttributeError, match="fuse_all_optimizer_ops"):
        strategy.fuse_all_optimiser_ops = True
    with pytest.raises(TypeError, match="reduce_strategy"):
        strategy.reduce_strategy = 1
    with pytest.raises(TypeError, match="num_threads"):
        fluid.ExecutionStrategy().num_threads = "4"


def test_single_numbers_and_shared_memory():
    t, other = fluid.LoDTensor(), fluid.LoDTensor()
    t.set(np.arange(6).reshape(2, 3).astype("float32"))
    other._share_data_with(t)
    t._set_float_element(1, 9.5)
    assert t._get_float_element(1) == 9.5 and np.array(other)[0, 1] == 9.5
    t._set_dims([3, 2])
    assert np.array(t).tolist() == [[0, 9.5], [2, 3], [4, 5]]
    with pytest.raises(RuntimeError, match="float32, not float64"):
        t._get_double_element(0)
    assert np.from_dlpack(t.torch()).sum() == 23.5 and t._to_dlpack() is not None
