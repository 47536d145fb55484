"""export, export_model, refusals: names, dims, control flow, files, errors."""

import os

import numpy as np
import onnx
import pytest
from golden import session

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import InvalidProgramError, MissingFileError, NotSupportedError, UninitializedError
from millstream.onnx.writer import files

layers = fluid.layers


def built(build):
    """(test Program, results, scope with parameters)."""
    main, startup, scope = fluid.Program(), fluid.Program(), fluid.Scope()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        outs = build()
    with fluid.scope_guard(scope):
        fluid.Executor(fluid.CPUPlace()).run(startup)
    return main.clone(for_test=True), [v.name for v in outs], scope


def check(build, *feeds, opset=17):
    """The ONNX model gives what the Program gives, for each feed."""
    program, outs, scope = built(build)
    model = ms_onnx.export(program, list(feeds[0]), outs, scope, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    ran, exe = session(model), fluid.Executor(fluid.CPUPlace())
    for feed in feeds:
        with fluid.scope_guard(scope):
            want = exe.run(program, feed=feed, fetch_list=outs)
        for a, b in zip(want, ran.run(None, feed)):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    return model


def normal(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype("float32")


def mlp():
    x = layers.data("x", [8])
    return [layers.fc(layers.fc(x, 6, act="relu"), 3, act="softmax")]


def test_batch_is_symbolic_and_varies():
    model = check(mlp, {"x": normal(2, 8)}, {"x": normal(5, 8)})
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert (dims[0].dim_param, dims[1].dim_value) == ("x_0", 8)
    assert [o.name for o in model.graph.output] == ["fc_1.tmp_2"]
    assert {t.name for t in model.graph.initializer} == {"fc_0.w_0", "fc_0.b_0", "fc_1.w_0", "fc_1.b_0"}


@pytest.mark.parametrize("opset", [17, 18, 20, 22])
def test_opsets(opset):
    def net():
        x = layers.data("x", [3, 8, 8])
        y = layers.pool2d(layers.conv2d(x, 4, 3, act="relu"), 2, "avg", 2)
        parts = layers.split(layers.reduce_mean(y, dim=[3]), 2, dim=1)
        return [layers.reduce_max(layers.concat(parts, 1), dim=1)]

    assert check(net, {"x": normal(2, 3, 8, 8)}, opset=opset).opset_import[0].version == opset


def test_opset_out_of_range():
    program, outs, scope = built(mlp)
    with pytest.raises(NotSupportedError, match="opset must be one of 17 to 22, received 16"):
        ms_onnx.export(program, ["x"], outs, scope, opset=16)


def test_sequences_are_values_and_offsets():
    def net():
        words = layers.data("words", [1], dtype="int64", lod_level=1)
        return [layers.embedding(words, [10, 4])]

    program, outs, scope = built(net)
    model = ms_onnx.export(program, ["words"], outs, scope)
    assert [i.name for i in model.graph.input] == ["words", "words.lod0"]
    assert [o.name for o in model.graph.output] == [outs[0], outs[0] + ".lod0"]
    ids = np.array([[1], [2], [3]])
    offsets = session(model).run(None, {"words": ids, "words.lod0": np.array([0, 1, 3])})[1]
    assert offsets.tolist() == [0, 1, 3]


def test_while_with_arrays():
    def net():
        x = layers.data("x", [4])
        i, n = layers.fill_constant([1], "int64", 0), layers.fill_constant([1], "int64", 5)
        total = layers.fill_constant_batch_size_like(x, [-1, 4], "float32", 0.0)
        array, going = layers.create_array("float32"), layers.less_than(i, n)
        loop = layers.While(going)
        with loop.block():
            layers.assign(total + x, total)
            layers.array_write(total * 1.0, i, array=array)
            layers.increment(i, 1, in_place=True)
            layers.less_than(i, n, cond=going)
        return [total, layers.tensor_array_to_tensor(array, axis=1)[0], layers.array_read(array, n - 1)]

    check(net, {"x": normal(3, 4)})


def test_branches():
    def net():
        x = layers.data("x", [4])
        positive = layers.less_than(layers.fill_constant([1], "float32", 0.0), layers.reduce_sum(x))
        return [layers.cond(positive, lambda: x * 2.0, lambda: x - 1.0)]

    check(net, {"x": np.abs(normal(3, 4))}, {"x": -np.abs(normal(3, 4))})


def test_rows_chosen_by_a_mask():
    def net():
        x = layers.data("x", [4])
        zero = layers.fill_constant_batch_size_like(x, [-1, 1], "float32", 0.0)
        either = layers.IfElse(layers.less_than(layers.reduce_sum(x, dim=[1], keep_dim=True), zero))
        with either.true_block():
            either.output(either.input(x) * 2.0)
        with either.false_block():
            either.output(either.input(x) - 1.0)
        return either()

    check(net, {"x": normal(6, 4)})


def test_static_rnn():
    def net():
        x = layers.data("x", [5, 3, 4], append_batch_size=False)
        rnn = layers.StaticRNN()
        with rnn.step():
            word = rnn.step_input(x)
            before = rnn.memory(shape=[-1, 6], batch_ref=word)
            hidden = layers.fc([word, before], 6, act="tanh")
            rnn.update_memory(before, hidden)
            rnn.step_output(hidden)
        return [rnn()]

    check(net, {"x": normal(5, 3, 4)})


def test_constants_are_folded():
    def net():
        x = layers.data("x", [3, 16, 16])
        feature = layers.conv2d(x, 4, 3, stride=4)
        boxes, variances = layers.prior_box(feature, x, min_sizes=[4.0])
        return [feature, boxes, variances]

    model = check(net, {"x": normal(2, 3, 16, 16)})
    assert {n.op_type for n in model.graph.node} == {"Conv", "Add", "Identity"}


def test_refusal_names_operator_variable_line_and_reason():
    def net():
        x = layers.data("x", [4])
        return [x + layers.gaussian_random([1, 4])]

    program, outs, scope = built(net)
    with pytest.raises(NotSupportedError) as error:
        ms_onnx.export(program, ["x"], outs, scope)
    text = str(error.value)
    assert "gaussian_random -> gaussian_random_0.tmp_0" in text
    assert "test_export.py" in text
    assert "draws at random" in text
    found = ms_onnx.refusals(program, ["x"], outs)
    assert [op.type for op, _ in found] == ["gaussian_random"]
    assert not ms_onnx.refusals([op for op in program.global_block().ops if op.type != "gaussian_random"])


def test_training_operators_are_refused():
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        loss = layers.mean(mlp()[0])
        fluid.optimizer.SGD(0.1).minimize(loss)
    reasons = {op.type: why for op, why in ms_onnx.refusals(main, ["x"])}
    assert "for_test=True" in reasons["sgd"]
    assert "mean" not in reasons


def test_wrong_names_and_missing_values():
    program, outs, scope = built(mlp)
    with pytest.raises(InvalidProgramError, match="feed 'y' is not a variable"):
        ms_onnx.export(program, ["y"], outs, scope)
    with pytest.raises(InvalidProgramError, match="fetch 'y' is not a variable"):
        ms_onnx.export(program, ["x"], ["y"], scope)
    with pytest.raises(UninitializedError, match=r"parameter 'fc_0\.[wb]_0' has no value"):
        ms_onnx.export(program, ["x"], outs, {})


@pytest.mark.parametrize("params", [None, "params"])
def test_saved_model(tmp_path, params):
    program, outs, scope = built(mlp)
    with fluid.scope_guard(scope):
        exe = fluid.Executor(fluid.CPUPlace())
        target = program.global_block().var(outs[0])
        fluid.io.save_inference_model(str(tmp_path), ["x"], [target], exe, program, None, params)
        want = exe.run(program, feed={"x": normal(2, 8)}, fetch_list=outs)[0]
    path = tmp_path / "out" / "model.onnx"
    ms_onnx.export_model(tmp_path, path, params_filename=params)
    got = session(onnx.load(path)).run(None, {"x": normal(2, 8)})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    with pytest.raises(MissingFileError, match="does not exist"):
        ms_onnx.export_model(tmp_path / "absent", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_large_models_keep_their_tensors_beside_them(tmp_path, monkeypatch):
    import onnxruntime

    program, outs, scope = built(lambda: [layers.fc(layers.data("x", [64]), 64)])
    monkeypatch.setattr(files, "LARGEST_FILE", 100)
    path = tmp_path / "model.onnx"
    model = ms_onnx.export(program, ["x"], outs, scope, path=path)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size < 2000
    want = session(model).run(None, {"x": normal(2, 64)})[0]
    got = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": normal(2, 64)})[0]
    np.testing.assert_array_equal(got, want)
    read, again = ms_onnx.load(path), fluid.Scope()
    with fluid.scope_guard(again):
        read.initialize()
        ran = fluid.Executor().run(read.program, feed={"x": normal(2, 64)}, fetch_list=read.fetch_vars)[0]
    np.testing.assert_allclose(ran, want, rtol=1e-5, atol=1e-6)


def test_without_the_package(monkeypatch):
    import sys

    program, outs, scope = built(mlp)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NotSupportedError, match=r"pip install millstream\[onnx\]"):
        ms_onnx.export(program, ["x"], outs, scope)
