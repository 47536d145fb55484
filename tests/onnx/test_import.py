"""load: models from other tools, training them further, saving them as Fluid models, errors."""

import glob
import importlib.util
import io
import os
import warnings
import zipfile

import numpy as np
import onnx
import pytest
from golden import session
from onnx import TensorProto, helper

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import FileFormatError, MissingFileError, NotSupportedError

torch = pytest.importorskip("torch")
nn = torch.nn


def run(read, feed, scope=None, program=None):
    """Outputs of an imported model."""
    scope = scope or fluid.Scope()
    with fluid.scope_guard(scope):
        if program is None:
            read.initialize(scope)
        exe = fluid.Executor(fluid.CPUPlace())
        return exe.run(program or read.program, feed=feed, fetch_list=read.fetch_vars)


def model_of(nodes, inputs, outputs, initializers=(), opset=17):
    """A ModelProto; inputs (name, dims), all float32."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    constants = [onnx.numpy_helper.from_array(a, n) for n, a in initializers]
    graph = helper.make_graph(list(nodes), "g", infos, outs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def same_as_runtime(model, feed, tolerance=1e-5):
    want = session(model).run(None, feed)
    got = run(ms_onnx.load(model.SerializeToString()), feed)
    for a, b in zip(want, got):
        np.testing.assert_allclose(np.reshape(b, a.shape), a, rtol=tolerance, atol=tolerance)


# ---- other tools' models ----------------------------------------------------------------------------------
class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish(),
            nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip

    def forward(self, x):
        return torch.softmax(self.body(x), -1)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.lstm = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(16, 6, batch_first=True, bidirectional=True)
        self.out = nn.Linear(12, 4)

    def forward(self, ids):
        hidden, _ = self.lstm(self.encoder(self.table(ids)))
        return self.out(self.gru(hidden)[0][:, -1])


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)
        self.group, self.layer, self.instance = nn.GroupNorm(2, 8), nn.LayerNorm(4), nn.InstanceNorm2d(4, affine=True)
        self.slope = nn.PReLU(4)

    def forward(self, x):
        y = self.slope(self.instance(self.up(self.group(torch.relu(self.conv(x))))))
        z = nn.functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        z = nn.functional.interpolate(z, size=(x.shape[2], x.shape[3]), mode="nearest")
        q = self.layer(z.permute(0, 2, 3, 1))
        top, _ = q.topk(2, -1)
        return (
            z.flatten(1).mean(1), top.clamp(-1, 1).sum((1, 2)), torch.where(q > 0, q, -q).amax(-1), z.std(1),
            torch.cumsum(q, 1), x.pow(2).sqrt().transpose(1, 3)[:, ::2],
        )  # fmt: skip


def exported_by_torch(module, x, axes):
    data = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), data, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes={"x": axes}
        )
    return data.getvalue()


@pytest.mark.parametrize(
    "module,make,axes,sizes",
    [
        (Convolutions, lambda b, h, w: torch.randn(b, 3, h, w), {0: "b", 2: "h", 3: "w"}, [(2, 33, 40), (3, 48, 31)]),
        (Words, lambda b, t: torch.randint(0, 50, (b, t)), {0: "b"}, [(3, 7), (2, 7)]),
        (Images, lambda b, h, w: torch.randn(b, 3, h, w), {0: "b", 2: "h", 3: "w"}, [(2, 8, 12), (1, 6, 10)]),
    ],
    ids=["convolutions", "words", "images"],
)
def test_torch_models(module, make, axes, sizes):
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator has no ONNX form
    net = module().eval()
    read = ms_onnx.load(exported_by_torch(net, make(*sizes[0]), axes))
    for size in sizes:
        x = make(*size)
        with torch.no_grad():
            want = net(x)
        for a, b in zip(want if isinstance(want, tuple) else (want,), run(read, {"x": x.numpy()})):
            np.testing.assert_allclose(b, a.numpy(), rtol=1e-4, atol=1e-5)


def ocr_models():
    """Files of the OCR models: of the installed package, or of the wheel (or folder) that MILLSTREAM_OCR_MODELS names."""
    given = os.environ.get("MILLSTREAM_OCR_MODELS", "")
    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    if not given and spec is not None and spec.submodule_search_locations:
        given = os.path.join(next(iter(spec.submodule_search_locations)), "models")
    if given.endswith(".whl") and os.path.isfile(given):
        with zipfile.ZipFile(given) as wheel:
            return {os.path.basename(n): wheel.read(n) for n in wheel.namelist() if n.endswith(".onnx")}
    found = {}
    for path in glob.glob(os.path.join(given, "*.onnx")) if given else []:
        with open(path, "rb") as source:
            found[os.path.basename(path)] = source.read()
    return found


OCR_SHAPES = {
    "_det_": [(1, 3, 64, 96), (1, 3, 160, 320), (2, 3, 96, 64)],
    "_rec_": [(1, 3, 48, 320), (2, 3, 48, 100)],
    "_cls_": [(1, 3, 48, 192), (3, 3, 48, 192)],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(OCR_SHAPES))
def test_ocr_models(kind):
    models = {name: data for name, data in ocr_models().items() if kind in name}
    if not models:
        pytest.skip("needs the package rapidocr_onnxruntime, or its wheel in MILLSTREAM_OCR_MODELS")
    for data in models.values():
        read, ran = ms_onnx.load(data), session(onnx.load_model_from_string(data))
        for shape in OCR_SHAPES[kind]:
            x = np.random.RandomState(0).uniform(-1, 1, shape).astype("float32")
            want = ran.run(None, {ran.get_inputs()[0].name: x})
            for a, b in zip(want, run(read, {read.feed_names[0]: x})):
                np.testing.assert_allclose(b, a, atol=1e-3)


# ---- what an imported model is -------------------------------------------------------------------------------
def test_train_further_and_save(tmp_path):
    torch.manual_seed(0)
    data = exported_by_torch(Convolutions().eval(), torch.randn(2, 3, 16, 16), {0: "b"})
    read, scope = ms_onnx.load(data), fluid.Scope()
    x, y = np.random.RandomState(0).randn(8, 3, 16, 16).astype("float32"), np.arange(8).reshape(8, 1) % 5
    program, startup = read.training_program(), fluid.Program()
    assert {p.name for p in program.all_parameters() if p.trainable} == {
        n for n in read.values if "running" not in n
    }
    with fluid.program_guard(program, startup):
        out = program.global_block().var(read.fetch_names[0])
        label = fluid.layers.data("label", [1], dtype="int64")
        loss = fluid.layers.mean(fluid.layers.cross_entropy(out, label))
        fluid.optimizer.Adam(0.01).minimize(loss)
    with fluid.scope_guard(scope):
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        read.initialize(scope)
        losses = [float(exe.run(program, feed={"x": x, "label": y}, fetch_list=[loss])[0][0]) for _ in range(20)]
        assert losses[-1] < 0.8 * losses[0]
        want = exe.run(read.program, feed={"x": x}, fetch_list=read.fetch_vars)[0]
        fluid.io.save_inference_model(str(tmp_path), read.feed_names, read.fetch_vars, exe, read.program)
    with fluid.scope_guard(fluid.Scope()):
        loaded, feeds, fetches = fluid.io.load_inference_model(str(tmp_path), exe)
        got = exe.run(loaded, feed={feeds[0]: x}, fetch_list=fetches)[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_shape_arithmetic_and_scalars():
    nodes = [
        helper.make_node("Shape", ["x"], ["dims"]),
        helper.make_node("Gather", ["dims", "zero"], ["batch"], axis=0),
        helper.make_node("Mul", ["batch", "two"], ["double"]),
        helper.make_node("Unsqueeze", ["double", "axis"], ["double1"]),
        helper.make_node("Concat", ["double1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["top"], keepdims=0),
        helper.make_node("Div", ["wide", "top"], ["y"]),
    ]
    constants = [("zero", np.array(0)), ("two", np.array(2)), ("axis", np.array([0])), ("rest", np.array([-1]))]
    model = model_of(nodes, [("x", ["b", 4])], ["y"], constants)
    same_as_runtime(model, {"x": np.arange(12, dtype="float32").reshape(3, 4)})


def test_quantized_models():
    rng = np.random.RandomState(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd"], ["y"]),
        helper.make_node("Round", ["x"], ["r"]),
    ]
    constants = [
        ("s", np.array(0.05, "float32")), ("z", np.array(3, "uint8")), ("wz", np.zeros(4, "int8")),
        ("w", rng.randint(-127, 127, (4, 3, 3, 3)).astype("int8")), ("ws", rng.rand(4).astype("float32") * 0.01),
    ]  # fmt: skip
    model = model_of(nodes, [("x", ["b", 3, 6, 6])], ["y", "r"], constants)
    same_as_runtime(model, {"x": (np.round(rng.randn(2, 3, 6, 6) * 4) / 4).astype("float32")})


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind,blocks", [("LSTM", 4), ("GRU", 3)])
def test_recurrent_networks_with_lengths(kind, blocks, direction):
    rng, d, sides = np.random.RandomState(0), 5, 2 if direction == "bidirectional" else 1
    constants = [
        ("w", rng.randn(sides, blocks * d, 3).astype("float32") * 0.5),
        ("r", rng.randn(sides, blocks * d, d).astype("float32") * 0.5),
        ("b", rng.randn(sides, 2 * blocks * d).astype("float32") * 0.5),
        ("lengths", np.array([4, 2, 3], np.int32)),
        ("h0", rng.randn(sides, 3, d).astype("float32")),
    ]
    outs = ["y", "h"] + (["c"] if kind == "LSTM" else [])
    node = helper.make_node(kind, ["x", "w", "r", "b", "lengths", "h0"], outs, hidden_size=d, direction=direction)
    model = model_of([node], [("x", [4, 3, 3])], outs, constants)
    same_as_runtime(model, {"x": rng.randn(4, 3, 3).astype("float32")})


def test_control_flow():
    body = helper.make_graph(
        [helper.make_node("Mul", ["v", "two"], ["w"]), helper.make_node("Identity", ["c"], ["again"]),
         helper.make_node("ReduceSum", ["w"], ["s"], keepdims=0)],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
    )  # fmt: skip
    branches = {}
    for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs")):
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([helper.make_node(kind, ["loop"], [name])], name, [], [out])
    nodes = [
        helper.make_node("Loop", ["count", "", "x"], ["loop", "sums"], body=body),
        helper.make_node("ReduceSum", ["loop"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], **branches),
    ]
    constants = [("count", np.array(3)), ("two", np.array(2, "float32")), ("zero", np.array(0, "float32"))]
    model = model_of(nodes, [("x", [2, 3])], ["y", "sums"], constants)
    for sign in (1, -1):
        same_as_runtime(model, {"x": sign * np.arange(6, dtype="float32").reshape(2, 3)})


# ---- errors ----------------------------------------------------------------------------------------------------
def test_an_operator_that_is_not_known():
    node = helper.make_node("Det", ["x"], ["y"], name="determinant")
    with pytest.raises(NotSupportedError, match=r"node 'determinant' \(Det -> 'y'\) can't be imported"):
        ms_onnx.load(model_of([node], [("x", [2, 2])], ["y"]))


def test_external_data_stays_in_the_folder(tmp_path):
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [("x", [4])], ["y"], [("w", np.ones(4, "float32"))])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add(key="location", value="w.bin")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(np.full(4, 2, "float32").tobytes())
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    (folder / "link").symlink_to(tmp_path / "secret")
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert run(ms_onnx.load(path), {"x": np.ones(4, "float32")})[0].tolist() == [3, 3, 3, 3]
    for place in ("../secret", str(tmp_path / "secret"), "link", "a/../../secret", ""):
        entry.value = place
        path.write_bytes(model.SerializeToString())
        with pytest.raises(FileFormatError, match="outside the folder"):
            ms_onnx.load(path)
    entry.value = "absent"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(MissingFileError, match="'absent', which is not there"):
        ms_onnx.load(path)


def test_no_such_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"absent\.onnx' does not exist"):
        ms_onnx.load(tmp_path / "absent.onnx")
