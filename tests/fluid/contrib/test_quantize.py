"""QuantizeTranspiler: losses and operators as 1.8.5 gave them for the same network."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError
from millstream.fluid.contrib import QuantizeTranspiler

# 1.8.5: losses of four steps, by (weight, activation) type.
LOSSES = {
    ("abs_max", "abs_max"): [9.528496, 3.5555582, 0.5409106, -1.1610345],
    ("abs_max", "range_abs_max"): [9.528496, 3.5634336, 0.52845895, -1.1564264],
    ("range_abs_max", "moving_average_abs_max"): [5.5888586, 3.8293757, 0.96701574, -1.0563861],
}
IMAGES = np.linspace(-1, 2, 32).reshape(2, 1, 4, 4).astype("float32")
FEED = {"x": IMAGES, "y": np.array([[1], [2]])}


def weight(first, *shape):
    values = np.linspace(first, 1, int(np.prod(shape))).reshape(shape).astype("float32")
    return fluid.initializer.NumpyArrayInitializer(values)


@pytest.fixture(params=LOSSES, ids="-".join)
def trained(request):
    main, startup = fluid.Program(), fluid.Program()
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(scope):
        x = fluid.layers.data("x", [1, 4, 4])
        y = fluid.layers.data("y", [1], dtype="int64")
        c = fluid.layers.conv2d(x, 2, 3, act="relu", param_attr=weight(-1, 2, 1, 3, 3))
        f = fluid.layers.fc(c, 3, act="softmax", param_attr=weight(-0.5, 8, 3))
        g = fluid.layers.fc(c, 2, param_attr=weight(-0.5, 8, 2))
        loss = fluid.layers.mean(fluid.layers.cross_entropy(f, y)) + fluid.layers.mean(g)
        test = main.clone(for_test=True)
        fluid.optimizer.SGD(0.1).minimize(loss)
        weights, activations = request.param
        transpiler = QuantizeTranspiler(weight_quantize_type=weights, activation_quantize_type=activations)
        transpiler.training_transpile(main, startup)
        transpiler.training_transpile(test, startup)
        exe.run(startup)
        losses = [exe.run(main, feed=FEED, fetch_list=[loss])[0].item() for _ in range(4)]
        np.testing.assert_allclose(losses, LOSSES[request.param], rtol=1e-5)
        yield exe, transpiler, test, [f, g]


def test_freezing(trained):
    exe, transpiler, test, fetches = trained
    simulated = exe.run(test, feed=FEED, fetch_list=fetches)
    transpiler.freeze_program(test, fluid.CPUPlace())
    types = [op.type for op in test.global_block().ops]
    assert types.count("fake_dequantize_max_abs") == 3
    position = types.index("conv2d")
    conv, back = test.global_block().ops[position : position + 2]
    assert conv.input("Filter") == ["conv2d_0.w_0"] and conv.input("Input") == ["x.quantized"]
    assert back.input("X") == ["conv2d_0.tmp_0"] and back.input("Scale") == ["x.scale"]
    whole = np.array(fluid.global_scope().find_var("conv2d_0.w_0").get_tensor())
    assert np.array_equal(whole, np.round(whole)) and np.abs(whole).max() == 127
    frozen = exe.run(test, feed=FEED, fetch_list=fetches)
    if transpiler.weight_quantize_type == "abs_max":  # other scales move in each run of a test Program, as in 1.8.5
        for one, other in zip(simulated, frozen):
            np.testing.assert_allclose(one, other, rtol=2e-5)
    transpiler.convert_to_int8(test, fluid.CPUPlace())
    assert conv.input("Filter") == ["conv2d_0.w_0.int8"] and not test.global_block().has_var("conv2d_0.w_0")
    assert np.array(fluid.global_scope().find_var("conv2d_0.w_0.int8").get_tensor()).dtype == np.int8


def test_errors():
    with pytest.raises(ValueError, match="'weight_quantize_type' must be one of abs_max"):
        QuantizeTranspiler(weight_quantize_type="channel_wise_abs_max")
    with pytest.raises(ValueError, match="activation_bits"):
        QuantizeTranspiler(activation_bits=17)
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()):
        fluid.layers.fc(fluid.layers.data("x", [3]), 2)
    with pytest.raises(InvalidProgramError, match="call training_transpile first"):
        QuantizeTranspiler().freeze_program(program, fluid.CPUPlace())
