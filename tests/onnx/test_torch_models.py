"""from_torch: modules and exported programs of torch, run here, trained on here, saved as Fluid models."""

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import NotSupportedError


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        self.lstm, self.heads = torch.nn.LSTM(8, 6, batch_first=True), torch.nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = torch.nn.Linear(6, 4)

    def forward(self, x):
        y, _ = self.lstm(torch.relu(self.norm(self.conv(x))).mean(3).transpose(1, 2))
        y, _ = self.heads(y, y, y)
        return self.out(y[:, -1]).softmax(-1)


def run(read, feed):
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        read.initialize(scope)
        return fluid.Executor(fluid.CPUPlace()).run(read.program, feed=feed, fetch_list=read.fetch_vars)


def same(read, net, x):
    with torch.no_grad():
        np.testing.assert_allclose(run(read, {"image": x.numpy()})[0], net(x).numpy(), rtol=1e-4, atol=1e-5)


def test_a_module_gives_what_torch_gives():
    net = Tagger().eval()
    read = ms_onnx.from_torch(net, torch.randn(2, 3, 10, 10), names=["image"], dynamic={"image": [0]})
    assert read.feed_names == ["image"]
    for batch in (2, 5):
        same(read, net, torch.randn(batch, 3, 10, 10))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_an_exported_program_gives_what_torch_gives():
    net, x = Tagger().eval(), torch.randn(2, 3, 10, 10)
    program = torch.export.export(net, (x,))
    same(ms_onnx.from_torch(program, x, names=["image"]), net, torch.randn(2, 3, 10, 10))
    with pytest.raises(NotSupportedError, match="give the torch module itself"):
        ms_onnx.from_torch(program, x, dynamic={"x": [0]})


def test_a_model_is_trained_further_and_saved(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    read = ms_onnx.from_torch(net, torch.zeros(2, 4), dynamic={"x": [0]})
    program, startup, scope, exe = read.training_program(), fluid.Program(), fluid.Scope(), fluid.Executor()
    x = np.random.randn(32, 4).astype("float32")
    feed = {"x": x, "y": x.sum(1, keepdims=True)}
    with fluid.program_guard(program, startup), fluid.scope_guard(scope):
        y = fluid.data("y", [None, 1])
        out = program.global_block().var(read.fetch_names[0])
        loss = fluid.layers.mean(fluid.layers.square_error_cost(out, y))
        fluid.optimizer.Adam(0.01).minimize(loss)
        exe.run(startup)
        read.initialize(scope)
        losses = [float(exe.run(program, feed=feed, fetch_list=[loss])[0][0]) for _ in range(60)]
        assert losses[-1] < losses[0] / 2
        fluid.io.save_inference_model(str(tmp_path), ["x"], read.fetch_vars, exe, read.program)
    with fluid.scope_guard(fluid.Scope()):
        loaded, feeds, fetches = fluid.io.load_inference_model(str(tmp_path), exe)
        assert exe.run(loaded, feed={feeds[0]: x}, fetch_list=fetches)[0].shape == (32, 1)


class Strange(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_errors_say_what_torch_or_the_reader_can_not_do():
    with pytest.raises(NotSupportedError, match="bessel"):
        ms_onnx.from_torch(Strange(), torch.zeros(2))
    with pytest.raises(TypeError, match="received str"):
        ms_onnx.from_torch("model.pt", torch.zeros(2))
    with pytest.raises(ValueError, match=r"dynamic names \['y'\]; the inputs are \['x'\]"):
        ms_onnx.from_torch(Strange(), torch.zeros(2), dynamic={"y": [0]})
