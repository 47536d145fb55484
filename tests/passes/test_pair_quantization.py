"""Frozen quantized Programs as pairs of (de)quantize_linear: engines compute them in integers, with Fluid's results."""

import numpy as np
import pytest

import millstream
import millstream.fluid as fluid
from millstream.fluid.contrib import QuantizeTranspiler
from millstream.inference.export import export
from millstream.passes import optimize, pipelines

IMAGES = np.random.RandomState(3).uniform(-1, 1, (2, 1, 6, 6)).astype("float32")


def network():
    x = fluid.layers.data("x", [1, 6, 6])
    y = fluid.layers.conv2d(x, 4, 3, act="relu")
    y = fluid.layers.conv2d(y, 4, 3, groups=4, act="relu", use_cudnn=False)
    left, right = fluid.layers.fc(y, 5, act="softmax"), fluid.layers.fc(y, 3)
    return x, [left, right]


def saved(folder, activations="range_abs_max", weights="abs_max", freeze=True, int8=False, bits=8):
    main, startup, exe = fluid.Program(), fluid.Program(), fluid.Executor(fluid.CPUPlace())
    main.random_seed = startup.random_seed = 5
    with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        _, outs = network()
        test = main.clone(for_test=True)
        fluid.optimizer.SGD(0.01).minimize(fluid.layers.mean(outs[0]) + fluid.layers.mean(outs[1]))
        made = QuantizeTranspiler(bits, bits, activations, weights)
        made.training_transpile(main, startup)
        made.training_transpile(test, startup)
        exe.run(startup)
        for _ in range(3):
            exe.run(main, feed={"x": IMAGES})
        if freeze:
            made.freeze_program(test, fluid.CPUPlace())
        if int8:
            made.convert_to_int8(test, fluid.CPUPlace())
        fluid.io.save_inference_model(str(folder), ["x"], outs, exe, test)
    return str(folder)


def by_channels(folder):
    """What slim's freezing leaves: scales for each channel of the weights."""
    main, rng = fluid.Program(), np.random.RandomState(1)
    scope, exe = fluid.Scope(), fluid.Executor(fluid.CPUPlace())
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard(), fluid.scope_guard(scope):
        block = main.global_block()

        def stored(name, value):
            scope.var(name).get_tensor().set(value, fluid.CPUPlace())
            return block.create_var(name=name, shape=value.shape, dtype="float32", persistable=True)

        def product(kind, x, slots, weight, scale):
            s = stored(f"{kind}.scale", np.array([scale], "float32"))
            w = stored(f"{kind}.w", rng.randint(-127, 128, weight).astype("float32"))
            axis = 1 if kind == "mul" else 0
            steps = stored(f"{kind}.steps", rng.uniform(0.2, 1, weight[axis]).astype("float32"))
            whole, out, back = (block.create_var(name=f"{kind}.{n}", dtype="float32") for n in ("whole", "out", "back"))
            outs = {"Out": whole, "OutScale": s}
            block.append_op("fake_quantize_moving_average_abs_max", {"X": x, "InScale": s}, outs, {"is_test": True})
            block.append_op(kind, {slots[0]: whole, slots[1]: w}, {slots[2]: out}, {})
            inputs = {"X": out, "Scales": [steps, s]}
            block.append_op("fake_channel_wise_dequantize_max_abs", inputs, {"Out": back}, {"quant_bits": [8, 8]})
            return back

        y = product("conv2d", fluid.data("x", [None, 1, 6, 6]), ("Input", "Filter", "Output"), [4, 1, 3, 3], 0.9)
        y = product("mul", fluid.layers.reshape(y, [-1, 64]), ("X", "Y", "Out"), [64, 3], 3.0)
        fluid.io.save_inference_model(str(folder), ["x"], [y], exe, main)
    return str(folder)


def exported(folder):
    onnx = pytest.importorskip("onnx")
    export(millstream.load(folder)._model, "onnx", f"{folder}.onnx")
    return onnx.load(f"{folder}.onnx")


MODELS = {
    "range": lambda folder: saved(folder), "int8": lambda folder: saved(folder, int8=True),
    "moving average": lambda folder: saved(folder, "moving_average_abs_max", "range_abs_max"), "channels": by_channels,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_engines_compute_in_integers(name, tmp_path):
    folder = MODELS[name](tmp_path / "m")
    model = exported(folder)
    kinds = [node.op_type for node in model.graph.node]
    products = sum(kind in ("Conv", "MatMul", "Gemm") for kind in kinds)
    assert kinds.count("DequantizeLinear") >= products + kinds.count("QuantizeLinear") >= products + 2
    assert "Floor" not in kinds and "Sign" not in kinds
    stored = {t.name: t.data_type for t in model.graph.initializer}
    assert list(stored.values()).count(3) >= products  # INT8
    floats = saved(tmp_path / "floats") if name == "int8" else folder  # only engines compute with weights of int8
    want = millstream.load(floats, optimize=False).run(IMAGES)
    onnxruntime = pytest.importorskip("onnxruntime")
    found = onnxruntime.InferenceSession(f"{folder}.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": IMAGES})
    for got, one in zip(found, want):
        assert np.abs(got - one).max() < 0.02 * np.abs(one).max()


def test_engines_of_a_predictor(tmp_path):
    folder = saved(tmp_path / "m")
    pytest.importorskip("onnxruntime")
    want = millstream.load(folder, optimize=False).run(IMAGES)
    auto = millstream.load(folder, engine="auto", remember=False)
    for got, one in zip(auto.run(IMAGES), want):
        assert np.abs(got - one).max() < 0.02 * np.abs(one).max()
    assert "onnxruntime: error" not in auto.explain() and "onnxruntime: 21 operators" in auto.explain()


def refusals(folder):
    model = millstream.load(folder)._model
    work = optimize(model.program, model.feeds, model.fetches, model.parameter, pipelines.EXPORT)
    return work.counts().get("pair_quantization", 0), [why for name, _, why in work.refused if name == "pair_quantization"]


@pytest.mark.parametrize(
    "settings,why",
    [({"activations": "abs_max"}, ""), ({"freeze": False}, "weight"), ({"bits": 7}, "8 bits")],
    ids=["scales of each batch", "weights as floats", "seven bits"],
)  # fmt: skip
def test_what_stays(settings, why, tmp_path):
    """Arithmetic on floats, as before, with the same results."""
    folder = saved(tmp_path / "m", **settings)
    count, found = refusals(folder)
    assert not why or any(why in text for text in found) or count
    exported(folder)
    onnxruntime = pytest.importorskip("onnxruntime")
    want = millstream.load(folder, optimize=False).run(IMAGES)
    found = onnxruntime.InferenceSession(f"{folder}.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": IMAGES})
    for got, one in zip(found, want):
        assert np.abs(got - one).max() < 0.03 * np.abs(one).max()
