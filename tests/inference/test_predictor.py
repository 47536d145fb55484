"""Predictors by Fluid's names: configs, both ways of running, clones, refusals."""

import pathlib
import threading

import numpy as np
import pytest
import torch

import millstream.fluid as fluid
from millstream.errors import (
    EnforceNotMet,
    FeedError,
    FileFormatError,
    InvalidProgramError,
    MissingFileError,
    NotSupportedError,
)
from millstream.fluid import core
from millstream.passes import pipelines

X = np.arange(8, dtype="float32").reshape(2, 4)
W = np.ones((2, 3), "float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of two inputs and two outputs in both forms, and what the Executor computes."""
    root = tmp_path_factory.mktemp("saved")
    main, startup = fluid.Program(), fluid.Program()
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        x, w = fluid.data("x", [None, 4]), fluid.data("w", [None, 3])
        y = fluid.layers.fc(x, 3, act="relu") + w
        z = fluid.layers.fc(y, 2)
        exe = fluid.Executor()
        exe.run(startup)
        want = exe.run(main, feed={"x": X, "w": W}, fetch_list=[z, y])
        fluid.io.save_inference_model(str(root / "sep"), ["x", "w"], [z, y], exe, main)
        fluid.io.save_inference_model(str(root / "all"), ["w", "x"], [z, y], exe, main, "model", "params")
    return root, want


@pytest.fixture
def predictor(saved):
    return core.create_paddle_predictor(core.AnalysisConfig(str(saved[0] / "sep")))


def check(outputs, want):
    assert all(np.array_equal(t.as_ndarray(), a) for t, a in zip(outputs, want))


def test_run(saved, predictor):
    assert predictor.get_input_names() == ["x", "w"]
    outputs = predictor.run([core.PaddleTensor(X), core.PaddleTensor(W)])
    check(outputs, saved[1])
    assert [t.name for t in outputs] == predictor.get_output_names()
    assert outputs[0].shape == [2, 2] and outputs[0].dtype == core.PaddleDType.FLOAT32 and outputs[0].lod == []
    assert np.allclose(outputs[0].data.float_data(), saved[1][0].ravel())


def test_forms_of_the_model(saved):
    root, want = saved
    both = str(root / "all" / "model"), str(root / "all" / "params")
    buffers = [pathlib.Path(path).read_bytes() for path in both]
    by_buffer = core.AnalysisConfig()
    by_buffer.set_model_buffer(buffers[0], len(buffers[0]), buffers[1], len(buffers[1]))
    assert by_buffer.model_from_memory() and by_buffer.prog_file() == ""
    by_files = core.AnalysisConfig()
    by_files.set_prog_file(both[0])
    by_files.set_params_file(both[1])
    native = core.NativeConfig()
    native.prog_file, native.param_file = both
    for config in (core.AnalysisConfig(*both), by_files, by_buffer, core.AnalysisConfig(by_buffer), native):
        made = core.create_paddle_predictor(config)
        assert made.get_input_names() == ["w", "x"]
        check(made.run([core.PaddleTensor(W), core.PaddleTensor(X)]), want)


def test_by_name(saved):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.switch_specify_input_names(True)
    made = core.create_paddle_predictor(config)
    check(made.run([core.PaddleTensor(W, "w"), core.PaddleTensor(X, name="x")]), saved[1])
    with pytest.raises(FeedError, match="'zzz' is no input"):
        made.run([core.PaddleTensor(W, "zzz"), core.PaddleTensor(X, "x")])
    with pytest.raises(FeedError, match="given twice"):
        made.run([core.PaddleTensor(X, "x"), core.PaddleTensor(X, "x")])


def test_zero_copy(saved):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.switch_use_feed_fetch_ops(False)
    made = core.create_paddle_predictor(config)
    x, w = made.get_input_tensor("x"), made.get_input_tensor("w")
    out = made.get_output_tensor(made.get_output_names()[0])
    assert x.shape() == [0] and out.shape() == [0]
    with pytest.raises(FeedError, match="'x' was not set"):
        made.zero_copy_run()
    with pytest.raises(EnforceNotMet, match="zero_copy_run first"):
        out.copy_to_cpu()
    with pytest.raises(TypeError, match="list of sizes for 'x', received 'a'"):
        x.reshape("a")
    with pytest.raises(TypeError, match="offsets such as"):
        x.set_lod("x")
    x.reshape([2, 4])
    x.copy_from_cpu(X)
    w.copy_from_cpu(W)
    assert made.zero_copy_run() is True
    assert np.array_equal(out.copy_to_cpu(), saved[1][0]) and out.type() == core.PaddleDType.FLOAT32
    x.copy_from_cpu(X[:1])
    w.copy_from_cpu(W[:1])
    made.zero_copy_run()
    assert out.shape() == [1, 2] and np.allclose(out.copy_to_cpu(), saved[1][0][:1], atol=1e-6)
    made.clear_intermediate_tensor()
    assert out.shape() == [0]
    with pytest.raises(FeedError, match="is an output"):
        out.copy_from_cpu(X)
    for get in (made.get_input_tensor, made.get_output_tensor):
        with pytest.raises(EnforceNotMet, match="nope"):
            get("nope")
    assert made.get_input_tensor_shape() == {"x": [-1, 4], "w": [-1, 3]}


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """sequence_pool(sum) of a ragged input."""
    folder = str(tmp_path_factory.mktemp("ragged"))
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        x = fluid.data("x", [None, 2], lod_level=1)
        exe = fluid.Executor()
        exe.run(startup)
        targets = [fluid.layers.sequence_pool(x, "sum"), fluid.layers.relu(x)]
        fluid.io.save_inference_model(folder, ["x"], targets, exe, main)
    return folder


def test_lod(ragged):
    made = core.create_paddle_predictor(core.AnalysisConfig(ragged))
    values = np.arange(12, dtype="float32").reshape(6, 2)
    for lod in ([[0, 2, 6]], [[0, 1, 1, 6]]):
        tensor = core.PaddleTensor(values)
        tensor.lod = lod
        pooled, same = made.run([tensor])
        want = np.array([values[a:b].sum(0) for a, b in zip(lod[0], lod[0][1:])])
        assert np.allclose(pooled.as_ndarray(), want) and same.lod == lod
    held = made.get_input_tensor("x")
    held.copy_from_cpu(values)
    held.set_lod([[0, 3, 6]])
    made.zero_copy_run()
    assert made.get_output_tensor(made.get_output_names()[1]).lod() == [[0, 3, 6]]
    with pytest.raises(FeedError, match="bad LoD"):
        tensor.lod = [[0, 2, 5]]
        made.run([tensor])


def test_refused_inputs(predictor):
    x, w = core.PaddleTensor(X), core.PaddleTensor(W)
    with pytest.raises(FeedError, match=r"takes 2 inputs.*received 1"):
        predictor.run([x])
    with pytest.raises(FeedError, match=r"received int64.*astype\('float32'\)"):
        predictor.run([core.PaddleTensor(X.astype("int64")), w])
    with pytest.raises(FeedError, match="received rank 1"):
        predictor.run([core.PaddleTensor(X[0]), w])
    with pytest.raises(EnforceNotMet, match="operator"):
        predictor.run([core.PaddleTensor(X[:, :3]), w])
    with pytest.raises(TypeError, match="numpy array"):
        core.PaddleTensor([1.0, 2.0])
    with pytest.raises(TypeError, match="dtype object"):
        core.PaddleTensor(np.array([None]))
    for arrays in ([X, W], X, {"x": x, "w": w}):
        with pytest.raises(TypeError, match="list of PaddleTensors"):
            predictor.run(arrays)
    x.shape = [3, 3]
    with pytest.raises(FeedError, match="do not make shape"):
        predictor.run([x, w])


def test_refused_models(saved, tmp_path):
    with pytest.raises(EnforceNotMet, match="Cannot open file"):
        core.create_paddle_predictor(core.AnalysisConfig(str(tmp_path)))
    with pytest.raises(EnforceNotMet, match="model_dir or"):
        core.create_paddle_predictor(core.AnalysisConfig())
    with pytest.raises(TypeError, match="NoneType"):
        core.create_paddle_predictor(None)
    with pytest.raises(TypeError, match="paths"):
        core.AnalysisConfig(3)
    (tmp_path / "__model__").write_bytes(b"not a program")
    with pytest.raises(FileFormatError, match="not a Fluid program"):
        core.create_paddle_predictor(core.AnalysisConfig(str(tmp_path)))
    (tmp_path / "__model__").write_bytes((saved[0] / "sep" / "__model__").read_bytes())
    with pytest.raises(MissingFileError, match=r"fc_\d\.[wb]_0"):
        core.create_paddle_predictor(core.AnalysisConfig(str(tmp_path)))


def test_engines_that_are_not_here_say_so():
    config = core.AnalysisConfig("model")
    calls = [config.enable_tensorrt_engine, config.enable_lite_engine, config.enable_quantizer]
    calls.append(lambda: config.set_trt_dynamic_shape_info({}, {}, {}))
    if not torch.cuda.is_available():
        calls.append(lambda: config.enable_use_gpu(100, 0))
    for call in calls:
        with pytest.raises(NotSupportedError):
            call()
    assert not config.use_gpu() and not config.tensorrt_engine_enabled() and not config.lite_engine_enabled()


def test_config_accessors():
    config = core.AnalysisConfig("folder")
    assert (config.model_dir(), config.prog_file(), config.params_file()) == ("folder", "", "")
    assert config.ir_optim() and config.use_feed_fetch_ops_enabled() and not config.specify_input_name()
    assert config.cpu_math_library_num_threads() == 1 and config.memory_pool_init_size_mb() == 100
    config.switch_ir_optim(False)
    config.enable_memory_optim()
    config.enable_mkldnn()
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(2)
    twin = core.AnalysisConfig(config)
    assert not twin.ir_optim() and twin.mkldnn_enabled() and twin.glog_info_disabled()
    assert twin.cpu_math_library_num_threads() == 2 and twin.to_native_config().model_dir == "folder"
    builder, first = config.pass_builder(), twin.pass_builder().all_passes()
    assert first == list(pipelines.INFER)
    builder.append_pass("one")
    builder.insert_pass(0, "zero")
    config.delete_pass("one")
    config.delete_pass("never there")
    config.delete_pass("fuse_fc")
    assert builder.all_passes() == ["zero"] + [n for n in first if n != "fuse_fc"]
    assert twin.pass_builder().all_passes() == first
    with pytest.raises(ValueError, match="at least 1"):
        config.set_cpu_math_library_num_threads(0)


def test_the_list_of_passes_is_what_runs(saved):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.pass_builder().append_pass("no_such_pass")
    with pytest.raises(InvalidProgramError, match="no_such_pass"):
        core.create_paddle_predictor(config)
    config.pass_builder().set_passes(["fuse_fc"])
    made = core.create_paddle_predictor(config)
    assert [name for name, _ in made._form.work.done] == ["fuse_fc"]
    check(made.run([core.PaddleTensor(X), core.PaddleTensor(W)]), saved[1])


def test_debugging_prints_what_passes_did(saved, capfd):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.switch_ir_debug(True)
    core.create_paddle_predictor(config)
    assert "fuse_fc: 2 changes" in capfd.readouterr().err
    config.switch_ir_debug(False)
    core.create_paddle_predictor(config)
    assert capfd.readouterr().err == ""


def test_init_takes_parameters_over(saved):
    made = core.create_paddle_predictor(core.AnalysisConfig(str(saved[0] / "sep")))
    scope = fluid.Scope()
    for var in made._model.persistables():
        scope.var(var.name).get_tensor().set(np.zeros(var.shape, "float32"))
    assert made.init(scope) is True
    assert not made.run([core.PaddleTensor(X), core.PaddleTensor(W)])[0].as_ndarray().any()
    with pytest.raises(EnforceNotMet, match="holds nothing"):
        made.init(fluid.Scope())
    made.create_feed_fetch_var(scope)
    assert scope.find_var("feed") is not None
    for call in (made.prepare_argument, made.analysis_argument, made.mkldnn_quantize):
        with pytest.raises(NotSupportedError):
            call()


def test_threads_are_put_back(saved):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.set_cpu_math_library_num_threads(torch.get_num_threads() + 1)
    before = torch.get_num_threads()
    check(core.create_paddle_predictor(config).run([core.PaddleTensor(X), core.PaddleTensor(W)]), saved[1])
    assert torch.get_num_threads() == before


def test_clones_share_parameters_and_run_in_threads(saved, predictor):
    clones = [predictor.clone() for _ in range(4)]
    assert all(type(c) is type(predictor) and c.scope() is predictor.scope() for c in clones)
    failed = []

    def work(made, k):
        for n in range(50):
            x = X * (k + n)
            got = made.run([core.PaddleTensor(x), core.PaddleTensor(W)])[1].as_ndarray()
            alone = predictor_of_its_own.run([core.PaddleTensor(x), core.PaddleTensor(W)])[1].as_ndarray() if k == 0 else got
            if not np.array_equal(got, alone):
                failed.append((k, n))

    predictor_of_its_own = core.create_paddle_predictor(core.AnalysisConfig(str(saved[0] / "sep")))
    threads = [threading.Thread(target=work, args=(c, k)) for k, c in enumerate(clones)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def test_results_are_copies(saved, predictor):
    x = core.PaddleTensor(X)
    first = predictor.run([x, core.PaddleTensor(W)])
    kept = first[0].as_ndarray()
    predictor.run([core.PaddleTensor(X * 5), core.PaddleTensor(W)])
    assert np.array_equal(first[0].as_ndarray(), kept)


def test_profile(saved, capfd):
    config = core.AnalysisConfig(str(saved[0] / "sep"))
    config.enable_profile()
    made = core.create_paddle_predictor(config)
    made.run([core.PaddleTensor(X), core.PaddleTensor(W)])
    del made
    assert "elementwise_add" in capfd.readouterr().err


def test_saved_again(saved, predictor, tmp_path):
    predictor.SaveOptimModel(str(tmp_path))
    again = core.create_paddle_predictor(core.AnalysisConfig(str(tmp_path / "model"), str(tmp_path / "params")))
    check(again.run([core.PaddleTensor(X), core.PaddleTensor(W)]), saved[1])
    assert fluid.Program.parse_from_string(predictor.get_serialized_program()).num_blocks == 1


def test_buffers():
    buffer = core.PaddleBuf([1.0, 2.0])
    assert buffer.length() == 8 and buffer.float_data() == [1.0, 2.0] and not buffer.empty()
    buffer.resize(4)
    assert buffer.length() == 4
    buffer.reset(np.arange(3))
    assert buffer.length() == 24 and buffer.int64_data() == [0, 1, 2] and buffer.tolist("int64") == [0, 1, 2]
    assert core.PaddleBuf(12).length() == 12 and core.PaddleBuf().empty()
    with pytest.raises(ValueError, match="int8"):
        buffer.tolist("int8")
    tensor = core.PaddleTensor()
    assert tensor.shape == [] and tensor.data.empty()
    tensor.data, tensor.shape, tensor.dtype = buffer, [3, 1], core.PaddleDType.INT64
    assert tensor.as_ndarray().tolist() == [[0], [1], [2]]
    assert core.PaddleTensor(np.arange(6).reshape(2, 3).T).as_ndarray().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_tensor_as_bytes():
    tensor = core.PaddleTensor(np.arange(4).reshape(2, 2), "nm", [[0, 1, 2]])
    recorded = (  # by PaddlePaddle 1.8.5
        "00000000" "0200000000000000" "6e6d" "0100000000000000" "1800000000000000"
        "000000000000000001000000000000000200000000000000" "0200000000000000" "02000000" "02000000" "01000000"
        "2000000000000000" "0000000000000000010000000000000002000000000000000300000000000000"
    )
    assert core.paddle_tensor_to_bytes(tensor).hex() == recorded
