import os
from kit import attempt, draw, fluid, np, section, show, train
from paddle.fluid import contrib
from paddle.fluid.contrib.memory_usage_calc import memory_usage
from paddle.fluid.contrib.op_frequence import op_freq_statistic
L = fluid.layers
R = np.random.RandomState(0)


def net():
    x = L.data("img", [1, 8, 8])
    y = L.data("label", [1], dtype="int64")
    c = fluid.nets.simple_img_conv_pool(x, 4, 3, 2, 2, act="relu")
    c = L.batch_norm(c)
    p = L.fc(c, 10, act="softmax")
    return x, y, p, L.mean(L.cross_entropy(p, y))


def feeds(n):
    R.seed(0)
    return [{"img": R.rand(4, 1, 8, 8).astype("float32"), "label": R.randint(0, 10, (4, 1)).astype("int64")} for _ in range(n)]


@section
def memory_and_frequency():
    net()
    lo, hi, unit = memory_usage(fluid.default_main_program(), batch_size=10)
    print("%.3f %.3f %s" % (lo, hi, unit))
    attempt(lambda: memory_usage("x", 3))
    attempt(lambda: memory_usage(fluid.default_main_program(), 0))
    attempt(lambda: op_freq_statistic(3))


@section
def model_summary():
    from paddle.fluid.contrib import summary
    net()
    summary(fluid.default_main_program())


@section
def model_stat_module():
    from paddle.fluid.contrib import model_stat
    net()
    model_stat.summary(fluid.default_main_program())


@section
def weight_decay():
    from paddle.fluid.contrib.extend_optimizer import extend_with_decoupled_weight_decay
    AdamW = contrib.extend_with_decoupled_weight_decay(fluid.optimizer.Adam)
    x, y, p, loss = net()
    opt = AdamW(learning_rate=0.01, weight_decay=0.1, apply_decay_param_fun=lambda n: "b_0" not in n)
    train(loss, feeds(3), opt)
    show(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor()))


@section
def lstm_gru_basic():
    x = L.data("x", [5, 3])
    n = L.data("n", [], dtype="int32")
    a, h, c = contrib.layers.basic_lstm(x, None, None, 4, num_layers=2, bidirectional=True, sequence_length=n, name="bl")
    b, hb = contrib.layers.basic_gru(x, None, 4, num_layers=1, sequence_length=n, name="bg")
    loss = L.reduce_mean(a) + L.reduce_mean(b)
    R.seed(1)
    train(loss, [{"x": R.rand(2, 5, 3).astype("float32"), "n": np.array([5, 3], "int32")} for _ in range(2)],
          fluid.optimizer.SGD(0.5), [a, h, c, b, hb])


@section
def contrib_layers():
    x = L.data("x", [6])
    y = L.data("y", [6])
    ids = L.data("ids", [1], dtype="int64", lod_level=1)
    o = contrib.layers.fused_elemwise_activation(x, y, ["elementwise_add", "relu"], save_intermediate_out=False)
    print(type(o).__name__)
    o1 = contrib.layers.fused_elemwise_activation(x, y, ["scale", "elementwise_add"], scale=3.0)
    e = contrib.layers.fused_embedding_seq_pool(ids, [20, 4], combiner="sum", padding_idx=0)
    s, i = L.topk(x, 2)
    pc = contrib.layers.partial_concat([x, y], start_index=1, length=2)
    ps = contrib.layers.partial_sum([x, y], start_index=1, length=2)
    sh = contrib.layers.shuffle_batch(x, seed=3)
    b3 = L.data("b3", [2, 3, 4], append_batch_size=False)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    R.seed(2)
    f = {"x": R.rand(3, 6).astype("float32"), "y": R.rand(3, 6).astype("float32") - 0.5, "b3": R.rand(2, 3, 4).astype("float32"),
         "ids": fluid.create_lod_tensor(np.array([[1], [0], [5], [3]], "int64"), [[2, 1, 1]], fluid.CPUPlace())}
    show(exe.run(feed=f, fetch_list=[o, o1, e, pc, ps], return_numpy=False))
    show(np.sort(exe.run(feed=f, fetch_list=[sh])[0].ravel()))


@section
def match_and_var_conv():
    x = L.data("x", [4], lod_level=1)
    y = L.data("y", [4], lod_level=1)
    m, t = contrib.layers.match_matrix_tensor(x, y, channel_num=2, act="tanh")
    print(m.lod_level, m.shape)
    row = L.data("row", [3], lod_level=1)
    col = L.data("col", [3], lod_level=1)
    v = contrib.layers.var_conv_2d(m, x, y, 2, 3, [2, 2], 1)
    tk = contrib.layers.sequence_topk_avg_pooling(m, x, y, [1, 2], 2)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    R.seed(2)
    lt = lambda n, l: fluid.create_lod_tensor(R.rand(n, 4).astype("float32"), [l], fluid.CPUPlace())
    show(exe.run(feed={"x": lt(5, [2, 3]), "y": lt(4, [3, 1])}, fetch_list=[m, v, tk], return_numpy=False))


@section
def tree_and_ctr():
    from paddle.fluid.contrib.layers import ctr_metric_bundle, multiclass_nms2, tdm_child, tdm_sampler
    pred = L.data("pred", [1])
    lab = L.data("lab", [1])
    r = ctr_metric_bundle(pred, lab)
    ids = L.data("ids", [1], dtype="int32")
    child, leaf = tdm_child(ids, node_nums=7, child_nums=2, param_attr=fluid.ParamAttr(
        name="tree", initializer=fluid.initializer.NumpyArrayInitializer(np.array(
            [[0, 0, 0, 1, 2], [0, 1, 0, 3, 4], [0, 1, 0, 5, 6], [1, 2, 1, 0, 0], [2, 2, 1, 0, 0], [3, 2, 2, 0, 0], [4, 2, 2, 0, 0]], "int32"))))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    show(exe.run(feed={"pred": np.array([[0.2], [0.8]], "float32"), "lab": np.array([[0], [1]], "float32"),
                       "ids": np.array([[1], [2], [3]], "int32")}, fetch_list=list(r) + [child, leaf]))


@section
def mixed_precision_lists():
    from paddle.fluid.contrib.mixed_precision import AutoMixedPrecisionLists, decorate
    a = AutoMixedPrecisionLists(custom_white_list=["relu"], custom_black_list=["mul"])
    print("relu" in a.white_list, "mul" in a.black_list, "mul" in a.white_list, sorted(a.white_list)[:6])
    x, y, p, loss = net()
    opt = decorate(fluid.optimizer.SGD(0.1), init_loss_scaling=8.0, use_dynamic_loss_scaling=True, incr_every_n_steps=2,
                   decr_every_n_nan_or_inf=2, incr_ratio=2.0, decr_ratio=0.5)
    opt.minimize(loss)
    print(opt.get_loss_scaling().shape, len(opt.get_scaled_loss().shape))
    print(sorted(set(o.type for o in fluid.default_main_program().global_block().ops)))


@section
def quantize():
    from paddle.fluid.contrib.quantize import QuantizeTranspiler
    x, y, p, loss = net()
    t = QuantizeTranspiler(weight_bits=8, activation_bits=8, activation_quantize_type="abs_max", weight_quantize_type="abs_max")
    main, startup = fluid.default_main_program(), fluid.default_startup_program()
    test = main.clone(for_test=True)
    fluid.optimizer.SGD(0.1).minimize(loss)
    t.training_transpile(main, startup)
    t.training_transpile(test, startup)
    print([o.type for o in test.global_block().ops])
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(startup)
    draw()
    for f in feeds(3):
        show(exe.run(main, feed=f, fetch_list=[loss]))
    t.freeze_program(test, fluid.CPUPlace())
    print([o.type for o in test.global_block().ops])
    show(exe.run(test, feed=feeds(1)[0], fetch_list=[p.name]))


@section
def decoder():
    from paddle.fluid.contrib.decoder.beam_search_decoder import InitState, StateCell, TrainingDecoder, BeamSearchDecoder
    src = L.data("src", [1], dtype="int64", lod_level=1)
    trg = L.data("trg", [1], dtype="int64", lod_level=1)
    lab = L.data("lab", [1], dtype="int64", lod_level=1)
    e = L.embedding(src, [9, 4], param_attr=fluid.ParamAttr(name="emb"))
    ctx = L.sequence_pool(L.fc(e, 6, act="tanh", name="enc"), "last")
    h = InitState(init=ctx, need_reorder=True)
    cell = StateCell(inputs={"x": None}, states={"h": h}, out_state="h")

    @cell.state_updater
    def updater(c):
        c.set_state("h", L.fc([c.get_input("x"), c.get_state("h")], 6, act="tanh", name="dec"))

    te = L.embedding(trg, [9, 4], param_attr=fluid.ParamAttr(name="emb"))
    d = TrainingDecoder(cell)
    with d.block():
        w = d.step_input(te)
        d.state_cell.compute_state(inputs={"x": w})
        s = L.fc(d.state_cell.get_state("h"), 9, act="softmax", name="out")
        d.state_cell.update_states()
        d.output(s)
    out = d()
    loss = L.mean(L.cross_entropy(out, lab))
    R.seed(4)
    lt = lambda l: fluid.create_lod_tensor(R.randint(0, 9, (sum(l), 1)).astype("int64"), [l], fluid.CPUPlace())
    train(loss, [{"src": lt([3, 2]), "trg": lt([2, 4]), "lab": lt([2, 4])} for _ in range(3)], fluid.optimizer.SGD(0.3))
