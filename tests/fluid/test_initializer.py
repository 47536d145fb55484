"""Initialisers as operators of the startup Program."""

import numpy as np
import pytest

import millstream.fluid as fluid


@pytest.mark.parametrize("name", ("Bilinear", "NumpyArrayInitializer"))
def test_order_in_the_startup_program(name):
    """The last made parameter comes first, but for bilinear weights, which stand at the end in the order of their making."""
    kernel = np.zeros((3, 1, 4, 4), "float32")
    make = fluid.initializer.Bilinear() if name == "Bilinear" else fluid.initializer.NumpyArrayInitializer(kernel)
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        x = fluid.data("x", [1, 3, 4, 4])
        for weight in ("w", "v"):
            attr = fluid.ParamAttr(weight, make)
            x = fluid.layers.conv2d_transpose(x, 3, filter_size=4, padding=1, stride=2, groups=3, param_attr=attr)
    order = [op.output_arg_names[0] for op in startup.global_block().ops]
    biases = ["conv2d_transpose_1.b_0", "conv2d_transpose_0.b_0"]
    assert order == (biases + ["w", "v"] if name == "Bilinear" else [biases[0], "v", biases[1], "w"])
    scope, exe = fluid.Scope(), fluid.Executor()
    exe.run(startup, scope=scope)
    values = np.array(scope.find_var("w").get_tensor())
    assert values.shape == kernel.shape and (values.any() == (name == "Bilinear"))
