"""WeightNormParamAttr: parameters and losses as 1.8.5 has them."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import NotSupportedError

# dim -> shape of g, what 1.8.5 makes of g in three steps
CASES = {
    None: ([1, 1], None),
    0: ([4, 1], [2.1115522, 6.874333, 11.959492, 17.081554]),
    1: ([1, 3], [11.021193, 12.633809, 14.333191]),
}


@pytest.mark.parametrize("dim", CASES)
def test_training(dim):
    shape, expected = CASES[dim]
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        x = fluid.layers.data("x", [4])
        initial = np.arange(12).reshape(4, 3).astype("float32")
        attr = fluid.WeightNormParamAttr(dim=dim, initializer=fluid.initializer.NumpyArrayInitializer(initial))
        y = fluid.layers.fc(x, 3, param_attr=attr, bias_attr=False)
        loss = fluid.layers.mean(fluid.layers.square(y))
        fluid.optimizer.SGD(0.01).minimize(loss)
        assert {p.name: list(p.shape) for p in main.all_parameters()} == {"fc_0.w_0_g": shape, "fc_0.w_0_v": [4, 3]}
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        feed = {"x": np.arange(8).reshape(2, 4).astype("float32") / 8}
        first = exe.run(main, feed=feed, fetch_list=[loss, y])
        np.testing.assert_allclose(first[1], feed["x"] @ initial, rtol=1e-5)  # w begins as v
        for _ in range(2):
            last = exe.run(main, feed=feed, fetch_list=[loss])
        assert last[0] < first[0]
        if expected is not None:
            g = np.array(fluid.global_scope().find_var("fc_0.w_0_g").get_tensor())
            np.testing.assert_allclose(g.ravel(), expected, rtol=1e-5)


def test_middle_dimension_and_eager_mode():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        x = fluid.layers.data("x", [2, 5, 5])
        attr = fluid.WeightNormParamAttr(dim=1, initializer=fluid.initializer.Constant(0.5))
        y = fluid.layers.conv2d(x, 3, 3, param_attr=attr, bias_attr=False)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        (out,) = exe.run(main, feed={"x": np.ones((1, 2, 5, 5), "float32")}, fetch_list=[y])
        np.testing.assert_allclose(out, 9.0, rtol=1e-6)
    with fluid.dygraph.guard(), pytest.raises(NotSupportedError, match="g and v in a Layer of your own"):
        fluid.dygraph.Linear(4, 3, param_attr=fluid.WeightNormParamAttr(dim=0))
