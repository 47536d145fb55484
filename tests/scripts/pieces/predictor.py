from kit import attempt, draw, fluid, np, section, show
from paddle.fluid.core import AnalysisConfig, create_paddle_predictor, PaddleTensor

L = fluid.layers
pl = fluid.CPUPlace()


@section
def predictor():
    x = L.data("x", [4])
    w = L.data("w", [1], dtype="int64", lod_level=1)
    p = L.fc([x, L.sequence_pool(L.embedding(w, [10, 3]), "sum")], 3, act="softmax")
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    fluid.io.save_inference_model("m", ["x", "w"], [p], exe, model_filename="model", params_filename="params")
    c = AnalysisConfig("m/model", "m/params")
    c.disable_gpu()
    c.switch_ir_optim(True)
    c.enable_memory_optim()
    c.set_cpu_math_library_num_threads(1)
    c.switch_use_feed_fetch_ops(True)
    pr = create_paddle_predictor(c)
    X = np.random.RandomState(0).rand(2, 4).astype("float32")
    a = PaddleTensor(X.copy())
    a.name = "x"
    b = PaddleTensor(np.array([[1], [2], [3]], "int64"))
    b.name = "w"
    b.lod = [[0, 1, 3]]
    o = pr.run([a, b])
    print(len(o), o[0].shape, o[0].name, str(o[0].dtype))
    show(o[0].as_ndarray())
    print(np.round(o[0].data.float_data(), 4).tolist())
    c2 = AnalysisConfig("m/model", "m/params")
    c2.disable_gpu()
    c2.switch_use_feed_fetch_ops(False)
    c2.switch_specify_input_names(True)
    p2 = create_paddle_predictor(c2)
    print(p2.get_input_names(), p2.get_output_names())
    t = p2.get_input_tensor("x")
    t.copy_from_cpu(X)
    t2 = p2.get_input_tensor("w")
    t2.copy_from_cpu(np.array([[1], [2], [3]], "int64"))
    t2.set_lod([[0, 1, 3]])
    p2.zero_copy_run()
    ot = p2.get_output_tensor(p2.get_output_names()[0])
    show(ot.copy_to_cpu())
    print(ot.lod())
    attempt(lambda: create_paddle_predictor(AnalysisConfig("nope")))


@section
def test_mode_ops():
    x = L.data("x", [3, 8, 8])
    d = L.dropout(x, 0.5)
    d2 = L.dropout(x, 0.5, dropout_implementation="upscale_in_train")
    b = L.batch_norm(L.conv2d(x, 4, 3), act="relu")
    loss = L.mean(d) + L.mean(d2) + L.mean(b)
    t = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.SGD(0.1).minimize(loss)
    t2 = fluid.default_main_program().clone(for_test=True)
    t3 = fluid.default_main_program().clone()
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    f = {"x": np.random.RandomState(0).rand(2, 3, 8, 8).astype("float32")}
    show(exe.run(t, feed=f, fetch_list=[d, d2, b, loss]))
    show(exe.run(t2, feed=f, fetch_list=[d, d2, b, loss]))
    print([len(q.global_block().ops) for q in (t, t2, t3)])


@section
def quant_fake():
    x = L.data("x", [4])
    p = L.fc(x, 3)
    blk = fluid.default_main_program().global_block()
    q = blk.create_var(name="q", dtype="float32", shape=[-1, 3])
    s = blk.create_var(name="s", dtype="float32", shape=[1])
    blk.append_op(
        type="fake_quantize_dequantize_abs_max" if False else "fake_quantize_abs_max",
        inputs={"X": [p]},
        outputs={"Out": [q], "OutScale": [s]},
        attrs={"bit_length": 8},
    )
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": np.random.RandomState(0).rand(2, 4).astype("float32")}, fetch_list=[q, s]))


@section
def compiled_infer():
    x = L.data("x", [4])
    p = L.fc(x, 3)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    fluid.io.save_inference_model("m2", ["x"], [p], exe)
    prog, fd, ft = fluid.io.load_inference_model("m2", exe)
    cp = (
        fluid.CompiledProgram(prog).with_inference_optimize(AnalysisConfig("m2"))
        if False
        else fluid.CompiledProgram(prog)
    )
    show(exe.run(cp, feed={fd[0]: np.ones((2, 4), "float32")}, fetch_list=ft))
    print(prog.num_blocks, [v.name for v in prog.list_vars() if v.persistable and v.name not in ("feed", "fetch")])
