"""What a layer keeps for its gradient alone is not made where nothing reads it."""

import numpy as np

import millstream.fluid as fluid

X = np.random.RandomState(0).rand(3, 5).astype("float32")


def normalised(train, in_loop=False):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        x = fluid.data("x", [None, 5])
        x.stop_gradient = False
        if in_loop:
            y = fluid.layers.assign(x)
            i, n = fluid.layers.fill_constant([1], "int64", 0), fluid.layers.fill_constant([1], "int64", 2)
            more = fluid.layers.less_than(i, n)
            with fluid.layers.While(more).block():
                fluid.layers.assign(fluid.layers.layer_norm(y), y)
                fluid.layers.increment(i, 1)
                fluid.layers.less_than(i, n, cond=more)
        else:
            y = fluid.layers.layer_norm(x)
        if train:
            fluid.optimizer.SGD(0.1).minimize(fluid.layers.mean(fluid.layers.square(y)))
    exe = fluid.Executor()
    exe.run(startup)
    return main, exe, y


def asked(exe):
    """`want` of all layer_norms that were lowered."""
    found = []
    for plan in exe._plans.values():
        for code in (plan.code, *(body.code for body in plan._bodies.values())):
            for kernel in code.constants.values():
                if getattr(getattr(kernel, "func", None), "__name__", "") == "layer_norm":
                    found.append(kernel.keywords["want"])
    return found


def test_statistics_are_left_out_where_nobody_reads_them():
    main, exe, y = normalised(train=False)
    plain = exe.run(main, feed={"x": X}, fetch_list=[y])[0]
    assert asked(exe) == [(True, False, False)]
    deviation = np.sqrt(X.var(1, keepdims=True) + 1e-5)
    assert np.allclose(plain, (X - X.mean(1, keepdims=True)) / deviation, atol=1e-5)


def test_statistics_are_there_when_fetched():
    main, exe, _ = normalised(train=False)
    variance = next(op for op in main.global_block().ops if op.type == "layer_norm").output("Variance")[0]
    found = exe.run(main, feed={"x": X}, fetch_list=[variance])[0]
    assert np.allclose(found, X.var(1), atol=1e-5)


def test_statistics_are_there_for_the_gradient():
    main, exe, y = normalised(train=True)
    exe.run(main, feed={"x": X}, fetch_list=[y])
    assert (True, True, True) in asked(exe)


def test_within_a_loop():
    main, exe, y = normalised(train=False, in_loop=True)
    found = exe.run(main, feed={"x": X}, fetch_list=[y])[0]
    assert asked(exe) == [(True, False, False)] and np.allclose(found.mean(1), 0, atol=1e-5)
