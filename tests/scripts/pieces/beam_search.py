from kit import draw, fluid, np, section, show

L = fluid.layers
pd = L
dict_size, wd, hid, beam, maxlen = 14, 6, 8, 3, 5


def encoder():
    src = L.data("src", [1], dtype="int64", lod_level=1)
    e = L.embedding(src, [dict_size, wd], param_attr="vemb", is_sparse=True)
    f = L.fc(e, hid * 4, act="tanh")
    h, c = L.dynamic_lstm(f, hid * 4, use_peepholes=False)
    return L.sequence_last_step(h)


def decode(context):
    arr_len = L.fill_constant([1], "int64", maxlen)
    counter = L.zeros([1], "int64", force_cpu=True)
    state = L.create_array("float32")
    L.array_write(context, i=counter, array=state)
    ids_a = L.create_array("int64")
    sc_a = L.create_array("float32")
    init_ids = L.data("init_ids", [1], dtype="int64", lod_level=2)
    init_sc = L.data("init_scores", [1], dtype="float32", lod_level=2)
    L.array_write(init_ids, array=ids_a, i=counter)
    L.array_write(init_sc, array=sc_a, i=counter)
    cond = L.less_than(x=counter, y=arr_len)
    w = L.While(cond=cond)
    with w.block():
        pre_ids = L.array_read(ids_a, counter)
        pre_state = L.array_read(state, counter)
        pre_sc = L.array_read(sc_a, counter)
        pse = L.sequence_expand(pre_state, pre_sc)
        emb = L.embedding(pre_ids, [dict_size, wd], param_attr="vemb", is_sparse=True)
        cur = L.fc(input=[pse, emb], size=hid, act="tanh")
        cl = L.lod_reset(x=cur, y=pre_sc)
        score = L.fc(input=cl, size=dict_size, act="softmax")
        ts, ti = L.topk(score, k=beam)
        acc = L.elementwise_add(L.log(ts), L.reshape(pre_sc, [-1]), axis=0)
        si, ss = L.beam_search(pre_ids, pre_sc, ti, acc, beam, end_id=10, level=0)
        L.increment(counter, 1, in_place=True)
        L.array_write(cur, array=state, i=counter)
        L.array_write(si, array=ids_a, i=counter)
        L.array_write(ss, array=sc_a, i=counter)
        lc = L.less_than(counter, arr_len)
        fc_ = L.logical_not(L.is_empty(si))
        L.logical_and(lc, fc_, out=cond)
    return L.beam_search_decode(ids=ids_a, scores=sc_a, beam_size=beam, end_id=10)


@section
def machine_translation():
    ctx = encoder()
    ti, ts = decode(ctx)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw(scale=4.0)
    pl = fluid.CPUPlace()
    n = 2
    ii = np.array([0] * n, "int64").reshape(n, 1)
    isc = np.array([1.0] * n, "float32").reshape(n, 1)
    lod = [[1] * n, [1] * n]
    src = fluid.create_lod_tensor(np.array([[1], [2], [3], [9], [8]], "int64"), [[3, 2]], pl)
    a, b = exe.run(
        feed={
            "src": src,
            "init_ids": fluid.create_lod_tensor(ii, lod, pl),
            "init_scores": fluid.create_lod_tensor(isc, lod, pl),
        },
        fetch_list=[ti, ts],
        return_numpy=False,
    )
    show(a, b)
    lod = a.lod()
    for i in range(len(lod[0]) - 1):
        for j in range(lod[0][i], lod[0][i + 1]):
            print(
                i,
                np.array(a)[lod[1][j] : lod[1][j + 1]].ravel().tolist(),
                round(float(np.array(b)[lod[1][j + 1] - 1]), 4),
            )


@section
def infer_rnn_cells():
    enc = L.data("enc", [4, 8])
    emb = lambda ids: fluid.embedding(ids, [dict_size, 8], param_attr="e")
    cell = L.GRUCell(hidden_size=8)
    out = lambda x: L.fc(x, dict_size, num_flatten_dims=len(x.shape) - 1, param_attr="ow", bias_attr=False)
    dec = L.BeamSearchDecoder(cell, start_token=0, end_token=1, beam_size=2, embedding_fn=emb, output_fn=out)
    init = L.reduce_mean(enc, 1)
    o, s = L.dynamic_decode(dec, inits=cell.get_initial_states(init) if False else init, max_step_num=6)
    print(o.shape, o.dtype)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw(scale=3.0)
    show(exe.run(feed={"enc": np.random.RandomState(0).rand(3, 4, 8).astype("float32")}, fetch_list=[o]))


@section
def train_helper_decode():
    tgt = L.data("tgt", [5, 6])
    ln = L.data("ln", [], dtype="int64")
    init = L.data("init", [8])
    helper = L.TrainingHelper(tgt, ln)
    cell = L.GRUCell(8)
    dec = L.BasicDecoder(cell, helper, output_fn=lambda x: L.fc(x, 4, param_attr="pw", bias_attr=False))
    o, st, lens = L.dynamic_decode(dec, inits=init, is_test=False, return_length=True)
    loss = L.mean(o.cell_outputs)
    pg = fluid.backward.append_backward(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    R = np.random.RandomState(0)
    show(
        exe.run(
            feed={
                "tgt": R.rand(2, 5, 6).astype("float32"),
                "ln": np.array([3, 5], "int64"),
                "init": R.rand(2, 8).astype("float32"),
            },
            fetch_list=[o.cell_outputs, o.sample_ids, lens, loss] + [g for _, g in pg],
        )
    )


@section
def greedy_helper():
    init = L.data("init", [8])
    W = lambda x: fluid.embedding(x, [9, 6], param_attr="emb")
    start = L.fill_constant_batch_size_like(init, [-1], "int64", 0)
    h = L.GreedyEmbeddingHelper(W, start, 1)
    dec = L.BasicDecoder(L.GRUCell(8), h, output_fn=lambda x: L.fc(x, 9, param_attr="pw", bias_attr=False))
    o, st, ln = L.dynamic_decode(dec, inits=init, max_step_num=4, return_length=True)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw(scale=3)
    show(
        exe.run(
            feed={"init": np.random.RandomState(0).rand(3, 8).astype("float32")},
            fetch_list=[o.cell_outputs, o.sample_ids, ln],
        )
    )


@section
def rnn_gru_reverse_len():
    x = L.data("x", [5, 3])
    ln = L.data("ln", [], dtype="int64")
    cell = L.GRUCell(4)
    o, s = L.rnn(cell, x, sequence_length=ln, is_reverse=True)
    loss = L.mean(o) + L.mean(s)
    pg = fluid.backward.append_backward(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(
        exe.run(
            feed={"x": np.random.RandomState(0).rand(2, 5, 3).astype("float32"), "ln": np.array([3, 5], "int64")},
            fetch_list=[o, s] + [g for _, g in pg],
        )
    )


@section
def rnn_time_major():
    x = L.data("x", [5, 2, 3], append_batch_size=False)
    cell = L.GRUCell(4)
    o, s = L.rnn(cell, x, time_major=True)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": np.random.RandomState(0).rand(5, 2, 3).astype("float32")}, fetch_list=[o, s]))


@section
def gather_tree():
    ids = L.data("ids", [3, 2, 2], dtype="int64", append_batch_size=False)
    par = L.data("par", [3, 2, 2], dtype="int64", append_batch_size=False)
    o = L.gather_tree(ids, par)
    exe = fluid.Executor(fluid.CPUPlace())
    show(
        exe.run(
            feed={
                "ids": np.array([[[2, 2], [6, 1]], [[3, 9], [6, 1]], [[0, 1], [9, 0]]], "int64"),
                "par": np.array([[[0, 0], [1, 1]], [[1, 0], [1, 0]], [[0, 0], [0, 1]]], "int64"),
            },
            fetch_list=[o],
        )
    )
