import os
from kit import draw, fluid, np, section, show, train
L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


def F(*s):
    return R.rand(*s).astype("float32")


def lt(a, l):
    return fluid.create_lod_tensor(a, l, pl)


@section
def ner_pipeline():
    R.seed(0)
    word, mark, target = [L.data(n, [1], dtype="int64", lod_level=1) for n in ("word", "mark", "target")]
    emb = [L.embedding(word, [20, 6], param_attr=fluid.ParamAttr(name="vemb")), L.embedding(mark, [3, 4], param_attr=fluid.ParamAttr(name="memb"))]
    h = [L.fc(e, 8, act="tanh") for e in emb]
    h = L.sums(h)
    f = L.dynamic_lstm(L.fc(h, 16), 16, use_peepholes=True)[0]
    b = L.dynamic_gru(L.fc(h, 12), 4, is_reverse=True)
    feat = L.fc([f, b], 5)
    crf = L.linear_chain_crf(feat, target, param_attr=fluid.ParamAttr(name="crfw", learning_rate=0.2))
    loss = L.mean(crf)
    dec = L.crf_decoding(feat, param_attr=fluid.ParamAttr(name="crfw"))
    p, r, f1, ni, nl, nc = L.chunk_eval(dec, target, "IOB", 2)
    fd = lambda: {"word": lt(R.randint(0, 20, (6, 1)).astype("int64"), [[2, 4]]), "mark": lt(R.randint(0, 3, (6, 1)).astype("int64"), [[2, 4]]), "target": lt(R.randint(0, 5, (6, 1)).astype("int64"), [[2, 4]])}
    train(loss, [fd() for _ in range(3)], O.Adam(0.05), [p, r, f1, ni, nl, nc])


@section
def seq_ops_all():
    R.seed(1)
    x = L.data("x", [4], lod_level=1)
    y = L.data("y", [4], lod_level=1)
    ids = L.data("ids", [1], dtype="int64", lod_level=1)
    outs = [L.sequence_pool(x, t) for t in ("sum", "average", "sqrt", "max", "last", "first")] + [L.sequence_softmax(L.fc(x, 1)), L.sequence_expand(L.sequence_pool(x, "sum"), y), L.sequence_expand_as(L.sequence_pool(x, "max"), y), L.sequence_concat([x, y]),
            L.sequence_reverse(x), L.sequence_slice(x, L.assign(np.array([[0], [1]], "int64")), L.assign(np.array([[1], [2]], "int64"))), L.sequence_conv(x, 3, 3), L.sequence_enumerate(ids, 2, pad_value=0), L.sequence_erase(ids, [2, 3]) if hasattr(L, "sequence_erase") else x, L.sequence_reshape(x, 2), L.row_conv(x, 2), L.im2sequence(L.data("im", [1, 4, 4]), 2, 2), L.lod_reset(x, target_lod=[0, 1, 5]), L.sequence_scatter(L.data("base", [6]), ids, L.cast(ids, "float32")), L.sequence_first_step(x), L.sequence_last_step(y)]
    pd, ln = L.sequence_pad(x, L.assign(np.array([0.0], "float32")), maxlen=5)
    outs += [pd, ln, L.sequence_unpad(pd, ln), L.sequence_mask(ln, maxlen=5)]
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": lt(F(5, 4), [[2, 3]]), "y": lt(F(4, 4), [[3, 1]]), "ids": lt(np.array([[1], [2], [3], [4], [5]], "int64"), [[2, 3]]), "im": F(2, 1, 4, 4), "base": F(2, 6)}, fetch_list=outs, return_numpy=False))


@section
def dynamic_rnn_attention():
    R.seed(2)
    src = L.data("src", [4], lod_level=1)
    trg = L.data("trg", [4], lod_level=1)
    enc = L.fc(src, 6, act="tanh")
    boot = L.fc(L.sequence_last_step(enc), 6, act="tanh")
    rnn = L.DynamicRNN()
    with rnn.block():
        w = rnn.step_input(trg)
        e = rnn.static_input(enc)
        h = rnn.memory(init=boot, need_reorder=True)
        hx = L.sequence_expand(h, e)
        a = L.sequence_softmax(L.fc(L.concat([e, hx], 1), 1, bias_attr=False))
        c = L.sequence_pool(L.elementwise_mul(e, L.reshape(a, [-1]), axis=0), "sum")
        n = L.fc([w, c, h], 6, act="tanh")
        rnn.update_memory(h, n)
        rnn.output(L.fc(n, 3, act="softmax"))
    out = rnn()
    loss = L.mean(L.reduce_sum(L.square(out), 1))
    train(loss, [{"src": lt(F(5, 4), [[2, 3]]), "trg": lt(F(6, 4), [[4, 2]])} for _ in range(3)], O.Adagrad(0.1), [out], rn=False)


@section
def rnn_cells_static():
    R.seed(3)
    x = L.data("x", [4, 3])
    n = L.data("n", [], dtype="int64")
    c = L.GRUCell(5)
    o, f = L.rnn(c, x, sequence_length=n)
    o2, f2 = L.rnn(L.GRUCell(5, name="g2"), x, is_reverse=True)
    l, lh, lc = L.lstm(L.transpose(x, [1, 0, 2]), L.fill_constant_batch_size_like(x, [1, -1, 4], "float32", 0.0, output_dim_idx=1), L.fill_constant_batch_size_like(x, [1, -1, 4], "float32", 0.0, output_dim_idx=1), 4, 4, 1) if False else (o, f, f2)
    loss = L.mean(o) + L.mean(o2)
    train(loss, [{"x": F(2, 4, 3), "n": np.array([4, 2], "int64")} for _ in range(2)], O.SGD(0.5), [o, f, o2, f2])


@section
def vision_mix():
    R.seed(4)
    x = L.data("x", [3, 8, 8])
    a = L.conv2d(x, 4, 3, padding="SAME", stride=2, act="relu")
    b = L.conv2d_transpose(a, 3, filter_size=4, stride=2, padding=1)
    c = L.pool2d(b, 3, "avg", 2, 1, ceil_mode=True, exclusive=False)
    outs = [a, b, c, L.adaptive_pool2d(b, [3, 2], "avg"), L.resize_bilinear(a, [7, 5], align_corners=False, align_mode=0), L.resize_nearest(a, scale=2.0, align_corners=False), L.lrn(b), L.pad2d(a, [1, 0, 2, 1], "reflect"), L.affine_channel(a, L.fill_constant([4], "float32", 2.0), L.fill_constant([4], "float32", 0.5)), L.group_norm(a, 2), L.instance_norm(a), L.maxout(a, 2), L.prelu(a - 0.2, "channel"),
            L.relu6(b * 9), L.swish(b), L.hard_swish(b), L.leaky_relu(b - 0.5, 0.1), L.elu(b), L.soft_relu(b), L.brelu(b, 0.1, 0.4), L.stanh(b), L.unfold(x, [2, 2], 2), L.spectral_norm(L.create_parameter([4, 3], "float32", name="sn"), 0, 1), L.grid_sampler(x, L.affine_grid(L.assign(np.tile(np.array([[[1, 0, 0.1], [0, 1, 0]]], "float32"), (2, 1, 1))), [2, 3, 8, 8])), L.roi_pool(x, L.data("rois", [4], lod_level=1), 2, 2), L.roi_align(x, L.data("rois", [4], lod_level=1), 2, 2, sampling_ratio=2), L.data_norm(L.data("dn", [3])), L.similarity_focus(x, 1, [0]), L.add_position_encoding(L.reshape(x, [-1, 8, 24]), 0.5, 0.5), L.image_resize_short(a, 3), L.fsp_matrix(a, a)]
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": F(2, 3, 8, 8), "rois": lt(np.array([[0, 0, 4, 4], [1, 1, 6, 5], [2, 0, 7, 7]], "float32"), [[2, 1]]), "dn": F(2, 3)}, fetch_list=outs, return_numpy=False))
