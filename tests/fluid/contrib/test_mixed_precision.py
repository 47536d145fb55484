"""Mixed precision: which operators are lowered, training in both half types, loss scaling, saving."""

import numpy as np
import pytest

from millstream import fluid
from millstream.errors import NotSupportedError
from millstream.ir.types import VarType
from millstream.passes.pipelines import PLAN

L = fluid.layers
AMP = fluid.contrib.mixed_precision
DYNAMIC = {"init_loss_scaling": 1024.0}  # bfloat16 has a scaling only where one is asked for
STATIC = {"use_dynamic_loss_scaling": False, "init_loss_scaling": 8.0}


def conv_net(x, y):
    h = L.batch_norm(L.conv2d(x, 8, 3, bias_attr=False), act="relu")
    h = L.pool2d(h, 2, pool_stride=2)
    h = L.pool2d(L.conv2d(h, 8, 3, act="relu"), 2, pool_type="avg", global_pooling=True)
    h = L.dropout(h, 0.1)
    return L.mean(L.softmax_with_cross_entropy(L.fc(h, 4), y))


def attention_net(x, y):
    h = L.fc(L.reshape(x, [-1, 12, 12]), 16, num_flatten_dims=2, act="tanh")
    h = L.layer_norm(h, begin_norm_axis=2)
    h = L.matmul(L.softmax(L.matmul(h, L.transpose(h, [0, 2, 1]), alpha=0.25)), h)
    h = L.concat([L.slice(h, [1], [0], [6]), L.slice(h, [1], [6], [12])], 1)
    h = L.reduce_mean(L.sigmoid(h), 1)
    h = L.elementwise_mul(h, L.fc(h, 16, act="leaky_relu"))
    return L.mean(L.cross_entropy(L.softmax(L.fc(h, 4)), y))


class Net:
    """A network with its Programs, Scope and optimizer."""

    def __init__(self, build, dtype="float32", rate=0.01, **how):
        self.main, self.startup, self.scope = fluid.Program(), fluid.Program(), fluid.Scope()
        self.main.random_seed = self.startup.random_seed = 7
        with fluid.program_guard(self.main, self.startup), fluid.unique_name.guard():
            x = L.data("x", [1, 12, 12])
            y = L.data("y", [1], dtype="int64")
            self.loss = build(x, y)
            self.optimizer = fluid.optimizer.Adam(rate)
            if dtype != "float32":
                self.optimizer = AMP.decorate(self.optimizer, dtype=dtype, **how)
            self.result = self.optimizer.minimize(self.loss)
        self.exe = fluid.Executor(fluid.CPUPlace())
        with fluid.scope_guard(self.scope):
            self.exe.run(self.startup)

    def step(self, feed, *fetches):
        with fluid.scope_guard(self.scope):
            return self.exe.run(self.main, feed=feed, fetch_list=list(fetches) or [self.loss])

    def value(self, name):
        return np.array(self.scope.find_var(name).get_tensor())


def batches(count):
    rng = np.random.RandomState(0)
    for _ in range(count):
        y = rng.randint(0, 4, (16, 1)).astype("int64")
        x = rng.rand(16, 1, 12, 12).astype("float32")
        for i, k in enumerate(y[:, 0]):
            x[i, 0, :, 3 * k : 3 * k + 3] += 1
        yield {"x": x, "y": y}


def losses(net, count=40):
    return np.array([float(net.step(feed)[0][0]) for feed in batches(count)])


@pytest.mark.parametrize("build", [conv_net, attention_net])
@pytest.mark.parametrize(("dtype", "how"), [
    ("bfloat16", STATIC), ("float16", STATIC), ("bfloat16", {}), ("float16", {}), ("bfloat16", DYNAMIC),
])  # fmt: skip
def test_training_stays_close_to_float32(build, dtype, how):
    want = losses(Net(build))
    net = Net(build, dtype, **how)
    got = losses(net)
    assert np.isfinite(got).all()
    assert got[-5:].mean() < 0.75 * got[:5].mean()
    near = {"rtol": 0.03, "atol": 0.01} if dtype == "bfloat16" else {"rtol": 0.01}
    np.testing.assert_allclose(got, want, **near)
    for p in net.main.all_parameters():
        assert p.dtype is VarType.FP32
        assert net.value(p.name).dtype == np.float32


@pytest.mark.parametrize(("dtype", "half"), [("float16", VarType.FP16), ("bfloat16", VarType.BF16)])
def test_white_and_gray_operators_are_lowered(dtype, half):
    net = Net(conv_net, dtype, **STATIC)
    block = net.main.global_block()
    made = {op.type: block.var(op.output_arg_names[0]).dtype for op in block.ops if op.role & 3 == 0}
    for kind in ("conv2d", "relu", "pool2d", "dropout", "mul", "elementwise_add"):
        assert made[kind] is half, kind
    for kind in ("softmax_with_cross_entropy", "mean"):
        assert made[kind] is VarType.FP32, kind
    norm = next(op for op in block.ops if op.type == "batch_norm")
    assert block.var(norm.output("Y")[0]).dtype is half
    assert block.var(norm.output("SavedMean")[0]).dtype is VarType.FP32
    assert all(block.var(n).dtype is VarType.FP32 for n in norm.input("Scale") + norm.output("MeanOut"))
    name = "conv2d_0.w_0.cast_" + {"float16": "fp16", "bfloat16": "bf16"}[dtype]
    assert block.var(name).dtype is half
    assert net.value("conv2d_0.w_0").dtype == np.float32


def test_lists():
    lists = AMP.AutoMixedPrecisionLists()
    assert lists.white_list == {"conv2d", "matmul", "mul"}
    assert "softmax" in lists.black_list
    assert {"batch_norm", "reshape2", "relu"} <= lists.gray_list
    lists = AMP.AutoMixedPrecisionLists(["exp", "mine"], ["mul", "relu"])
    assert {"exp", "mine"} <= lists.white_list
    assert "exp" not in lists.black_list
    assert "relu" not in lists.gray_list
    assert "mul" in lists.black_list
    assert "mul" not in lists.white_list
    with pytest.raises(ValueError, match="both have tanh"):
        AMP.AutoMixedPrecisionLists(["tanh"], ["tanh"])
    with pytest.raises(TypeError, match="custom_black_varnames"):
        AMP.AutoMixedPrecisionLists(custom_black_varnames="fc_0.w_0")


def test_black_variables_and_operators():
    lists = AMP.AutoMixedPrecisionLists(custom_black_list=["conv2d"], custom_black_varnames=["fc_0.w_0"])
    net = Net(conv_net, "bfloat16", amp_lists=lists, **STATIC)
    assert not [op for op in net.main.global_block().ops if op.type == "cast"]


def linear(x, y):
    return L.mean(L.fc(x, 2, bias_attr=False, param_attr=fluid.initializer.Constant(0.01)))


def scaling_of(net):
    return [float(net.value(n)[0]) for n in ("loss_scaling_0", "num_good_steps_0", "num_bad_steps_0")]


def test_dynamic_scaling_follows_overflow():
    net = Net(linear, "float16", init_loss_scaling=1024.0, incr_every_n_steps=2, decr_every_n_nan_or_inf=1, decr_ratio=0.25)
    good = next(batches(1))
    bad = {"x": np.full((16, 1, 12, 12), np.inf, "float32"), "y": good["y"]}
    seen = []
    for feed in (good, good, good, bad, bad, good, bad):
        before = net.value("fc_0.w_0")
        net.step(feed)
        after = net.value("fc_0.w_0")
        assert np.isfinite(after).all()
        if feed is good:
            assert (before != after).any()
        seen.append(scaling_of(net))
    assert seen == [
        [1024.0, 1, 0],
        [1024.0, 2, 0],
        [2048.0, 0, 0],
        [2048.0, 0, 1],
        [512.0, 0, 0],  # as in 1.8.5, a number of steps has to be exceeded
        [512.0, 1, 0],
        [512.0, 0, 1],
    ]


def test_scaling_that_overflows_float16_comes_down():
    net = Net(linear, "float16", init_loss_scaling=2.0**24, decr_every_n_nan_or_inf=1, decr_ratio=0.5)
    feed = next(batches(1))
    start = net.value("fc_0.w_0")
    net.step(feed)
    np.testing.assert_array_equal(net.value("fc_0.w_0"), start)  # an update with zeros
    for _ in range(20):
        net.step(feed)
    scaling, good, _ = scaling_of(net)
    assert 1.0 <= scaling < 2.0**24
    assert good > 0
    assert (net.value("fc_0.w_0") != start).all()


def test_scaling_never_falls_below_one():
    net = Net(linear, "float16", init_loss_scaling=1.5, decr_every_n_nan_or_inf=1, decr_ratio=0.1)
    feed = next(batches(1))
    feed["x"] = np.full((16, 1, 12, 12), np.nan, "float32")
    for _ in range(3):
        net.step(feed)
    assert scaling_of(net)[0] == 1.0


def test_small_gradients_need_scaling():
    def tiny(x, y):
        return L.scale(linear(x, y), 1e-8)

    def moved(scaling):
        net = Net(tiny, "float16", use_dynamic_loss_scaling=False, init_loss_scaling=scaling)
        grad = net.result[1][0][1]
        return net.step(next(batches(1)), grad)[0]

    assert not moved(1.0).any()
    got = moved(2.0**15)
    x = next(batches(1))["x"].reshape(16, -1)
    np.testing.assert_allclose(got, np.repeat(x.sum(0)[:, None] / 32 * 1e-8, 2, 1), rtol=2e-3)


def test_scaled_loss_and_pairs():
    net = Net(linear, "bfloat16", **STATIC)
    loss, scaled, scaling = net.step(
        next(batches(1)), net.loss, net.optimizer.get_scaled_loss(), net.optimizer.get_loss_scaling()
    )
    assert scaling[0] == 8.0
    assert scaled[0] == loss[0] * 8
    assert [p.name for p, _ in net.result[1]] == ["fc_0.w_0"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_saving_keeps_master_weights(tmp_path, dtype):
    net = Net(conv_net, dtype, **DYNAMIC)
    feeds = list(batches(6))
    for feed in feeds[:3]:
        net.step(feed)
    with fluid.scope_guard(net.scope):
        fluid.io.save_persistables(net.exe, str(tmp_path / "all"), net.main)
        fluid.io.save_inference_model(
            str(tmp_path / "model"), ["x", "y"], [net.loss], net.exe, net.main.clone(for_test=True)
        )
    want = [float(net.step(feed)[0][0]) for feed in feeds[3:]]
    again = Net(conv_net, dtype, **DYNAMIC)
    with fluid.scope_guard(again.scope):
        fluid.io.load_persistables(again.exe, str(tmp_path / "all"), again.main)
    assert again.value("conv2d_0.w_0").dtype == np.float32
    assert scaling_of(again)[:2] == [1024.0, 3]
    got = [float(again.step(feed)[0][0]) for feed in feeds[3:]]
    np.testing.assert_allclose(got, want, rtol=0.1)  # dropout draws other elements
    with fluid.scope_guard(fluid.Scope()):
        program, names, targets = fluid.io.load_inference_model(str(tmp_path / "model"), again.exe)
        loss = again.exe.run(program, feed=dict(zip(names, (feeds[3]["x"], feeds[3]["y"]))), fetch_list=targets)[0]
    assert np.isfinite(loss).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_loops_keep_float32(dtype):
    def loop(x, y):
        h = L.fc(x, 4, act="tanh")
        count, end = L.fill_constant([1], "int64", 0), L.fill_constant([1], "int64", 2)
        outer = L.fc(x, 4)  # read inside only
        _, h = L.while_loop(
            lambda i, h: L.less_than(i, end), lambda i, h: [i + 1, L.tanh(L.fc(h, 4, param_attr="w") + outer)], [count, h]
        )
        return L.mean(L.softmax_with_cross_entropy(L.fc(h, 4), y))

    np.testing.assert_allclose(losses(Net(loop, dtype), 10), losses(Net(loop), 10), rtol=0.02)


def test_clipping_and_decay_see_unscaled_gradients():
    def trained(dtype):
        main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
        with fluid.program_guard(main, startup), fluid.unique_name.guard():
            loss = linear(L.data("x", [4]), None)
            optimizer = fluid.optimizer.SGD(
                0.5, regularization=fluid.regularizer.L2Decay(0.1), grad_clip=fluid.clip.GradientClipByGlobalNorm(0.25)
            )
            (optimizer if dtype == "float32" else AMP.decorate(optimizer, None, 256.0, dtype=dtype)).minimize(loss)
        exe = fluid.Executor(fluid.CPUPlace())
        with fluid.scope_guard(scope):
            exe.run(startup)
            exe.run(main, feed={"x": np.arange(8, dtype="float32").reshape(2, 4)})
        return np.array(scope.find_var("fc_0.w_0").get_tensor())

    np.testing.assert_allclose(trained("float16"), trained("float32"), rtol=2e-3)
    np.testing.assert_allclose(trained("bfloat16"), trained("float32"), rtol=1e-2)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "float64"}, "float16"),
        ({"init_loss_scaling": 0}, "init_loss_scaling"),
        ({"incr_every_n_steps": 0}, "incr_every_n_steps"),
        ({"decr_every_n_nan_or_inf": 1.5}, "decr_every_n_nan_or_inf"),
        ({"incr_ratio": 0.5}, "incr_ratio"),
        ({"decr_ratio": 2.0}, "decr_ratio"),
    ],
)
def test_wrong_arguments(how, message):
    with fluid.program_guard(fluid.Program(), fluid.Program()), pytest.raises(ValueError, match=message):
        AMP.decorate(fluid.optimizer.SGD(0.1), **how)


def test_gradients_first_is_refused():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        loss = linear(L.data("x", [4]), None)
        fluid.backward.append_backward(loss)
        with pytest.raises(ValueError, match="gradient operators already"):
            AMP.decorate(fluid.optimizer.SGD(0.1)).minimize(loss)


def test_decorated_elsewhere():
    """Decorated under one Program, used under another."""
    optimizer = AMP.decorate(fluid.optimizer.SGD(0.1))
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    with fluid.program_guard(main, startup):
        loss = linear(L.data("x", [4]), None)
        optimizer.minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(scope):
        exe.run(startup)
        assert np.isfinite(exe.run(main, feed={"x": np.ones((2, 4), "float32")}, fetch_list=[loss])[0]).all()


def test_sparse_gradients_are_refused():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        ids = fluid.data("ids", [None, 1], "int64")
        loss = L.mean(L.embedding(ids, [10, 4], is_sparse=True, param_attr="table"))
        with pytest.raises(NotSupportedError, match="'table' is sparse"):
            AMP.decorate(fluid.optimizer.SGD(0.1)).minimize(loss)


def test_data_parallel():
    net = Net(linear, "bfloat16", init_loss_scaling=64.0, incr_every_n_steps=1)
    places = [fluid.CPUPlace()] * 2
    program = fluid.CompiledProgram(net.main).with_data_parallel(loss_name=net.loss.name, places=places)
    with fluid.scope_guard(net.scope):
        got = [net.exe.run(program, feed=feed, fetch_list=[net.loss])[0] for feed in batches(4)]
    assert np.isfinite(got).all()
    assert scaling_of(net)[0] == 256.0


def wide_net(x, y):
    """Operators that bfloat16 alone lowers, between products."""
    h = L.conv2d(L.conv2d(x, 8, 3), 8, 3, stride=2, padding=1, groups=8, use_cudnn=False)
    h = L.swish(L.sums([h, L.gelu(h)]))
    h = L.fc(L.reshape(h, [-1, 8, 25]), 16, num_flatten_dims=2)
    h = L.layer_norm(L.hard_swish(h), begin_norm_axis=2)
    h = L.matmul(L.softmax(L.matmul(h, h, transpose_y=True, alpha=0.25)), h)
    return L.mean(L.cross_entropy(L.fc(h, 4, act="softmax"), y))


def test_bfloat16_lowers_more():
    want = losses(Net(wide_net), 20)
    net = Net(wide_net, "bfloat16")
    assert not {"elementwise_div", "isfinite"} & {op.type for op in net.main.global_block().ops}  # no loss scaling
    assert net.optimizer.get_loss_scaling().shape == (1,)
    np.testing.assert_allclose(losses(net, 20), want, rtol=0.03, atol=0.01)
    block = net.main.global_block()
    made = [(op.type, block.var((op.outputs.get("Y") or op.output_arg_names)[0]).dtype) for op in block.ops]
    forward = dict(made[: [kind for kind, _ in made].index("mean")])
    for kind in ("depthwise_conv2d", "sum", "gelu", "swish", "hard_swish", "layer_norm"):
        assert forward[kind] is VarType.BF16, kind
    assert [d for kind, d in made if kind == "softmax"] == [VarType.BF16, VarType.FP32]  # the loss is of float32
    norm = next(op for op in block.ops if op.type == "layer_norm")
    assert block.var(norm.output("Mean")[0]).dtype is VarType.FP32
    assert not any(n.startswith("x.cast_bf16@GRAD") for op in block.ops for n in op.output_arg_names)  # x is data
    kept = AMP.AutoMixedPrecisionLists(custom_black_list=["layer_norm"])
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        x, y = L.data("x", [1, 12, 12]), L.data("y", [1], dtype="int64")
        AMP.decorate(fluid.optimizer.SGD(0.1), kept, dtype="bfloat16").minimize(wide_net(x, y))
        block = fluid.default_main_program().global_block()
        norm = next(op for op in block.ops if op.type == "layer_norm")
        assert block.var(norm.output("Y")[0]).dtype is VarType.FP32


def test_sparse_gradients_without_scaling():
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        words, y = L.data("words", [1], dtype="int64"), L.data("y", [1], dtype="int64")
        h = L.embedding(words, [50, 8], is_sparse=True)
        loss = L.mean(L.softmax_with_cross_entropy(L.fc(h, 4), y))
        AMP.decorate(fluid.optimizer.SGD(0.5), dtype="bfloat16").minimize(loss)
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    feed = {"words": np.arange(20).reshape(-1, 1) % 7, "y": np.arange(20).reshape(-1, 1) % 7 % 4}
    with fluid.scope_guard(scope):
        exe.run(startup)
        found = [float(exe.run(main, feed=feed, fetch_list=[loss])[0][0]) for _ in range(30)]
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize("make", [
    lambda: fluid.optimizer.SGD(0.1), lambda: fluid.optimizer.Momentum(0.1, 0.9), lambda: fluid.optimizer.Adam(0.01),
    lambda: fluid.optimizer.Momentum(0.1, 0.9, regularization=fluid.regularizer.L2Decay(0.01)),
], ids=["sgd", "momentum", "adam", "decay"])  # fmt: skip
def test_updates_read_bfloat16_gradients(make):
    """The casts of gradients become part of the update: the same numbers with the pass and without."""

    def run(passes):
        main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
        main.random_seed = startup.random_seed = 5
        with fluid.program_guard(main, startup), fluid.unique_name.guard():
            x, y = L.data("x", [600]), L.data("y", [1], dtype="int64")
            loss = L.mean(L.softmax_with_cross_entropy(L.fc(L.fc(x, 500, act="relu"), 4), y))
            AMP.decorate(make(), dtype="bfloat16").minimize(loss)
        exe = fluid.Executor(fluid.CPUPlace())
        if not passes:
            exe.passes = tuple(name for name in PLAN if name != "fuse_optimizers")
        rng = np.random.RandomState(0)
        with fluid.scope_guard(scope):
            exe.run(startup)
            for _ in range(3):
                feed = {"x": rng.rand(8, 600).astype("float32"), "y": rng.randint(0, 4, (8, 1))}
                exe.run(main, feed=feed, fetch_list=[loss])
            plan = list(exe._plans.values())[-1]
            kinds = [op.type for op in plan.work.program.global_block().ops] if passes else []
            return kinds, {p.name: np.array(scope.find_var(p.name).get_tensor()) for p in main.all_parameters()}

    kinds, got = run(True)
    _, want = run(False)
    assert any(k.startswith("fused_") for k in kinds)
    assert "cast" not in kinds[kinds.index("dense_layer_grad") :]
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-3, atol=2e-5, err_msg=name)


def test_casts_of_gradients_move_without_a_walk_each(monkeypatch):
    """Two and four times the layers: asks grow in proportion."""
    from millstream.fluid.contrib.mixed_precision import fp16_utils

    asked = []
    real = fp16_utils.walk.reads_of
    monkeypatch.setattr(fp16_utils.walk, "reads_of", lambda op: asked.append(1) or real(op))
    counts = []
    for depth in (10, 20):
        asked.clear()
        main = fluid.Program()
        with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
            x = L.data("x", [4])
            for _ in range(depth):
                x = L.fc(x, 4, act="relu")
            AMP.decorate(fluid.optimizer.SGD(0.1), dtype="bfloat16").minimize(L.mean(x))
        counts.append(len(asked))
        ops = main.global_block().ops
        first_update = next(k for k, op in enumerate(ops) if op.type == "sgd")
        moved = [op.input("X")[0] for op in ops[:first_update] if op.type == "cast" and op.role & 2]
        assert len(moved) >= depth  # a weight a layer, gathered behind all gradients
        assert all(name.split("@")[0].endswith("cast_bf16") for name in moved)
    assert counts[1] <= 2.3 * counts[0]
