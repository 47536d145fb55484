from kit import fluid, np, section, train

L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()


def lod(rows, lens, V=20, seed=0):
    r = np.random.RandomState(seed)
    return fluid.create_lod_tensor(r.randint(0, V, (sum(lens), 1)).astype("int64"), [lens], pl)


@section
def lac():
    word = L.data("word", [1], dtype="int64", lod_level=1)
    target = L.data("target", [1], dtype="int64", lod_level=1)
    emb = L.embedding(
        word,
        [20, 8],
        param_attr=fluid.ParamAttr(
            learning_rate=5.0, name="word_emb", initializer=fluid.initializer.Uniform(-0.1, 0.1)
        ),
    )
    x = emb
    for i in range(2):
        pre = L.fc(x, 12, param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L2DecayRegularizer(1e-4)))
        g = L.dynamic_gru(pre, 4, param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L2DecayRegularizer(1e-4)))
        pr = L.fc(x, 12)
        gr = L.dynamic_gru(pr, 4, is_reverse=True)
        x = L.concat([g, gr], 1)
    em = L.fc(x, 5)
    cost = L.linear_chain_crf(em, target, param_attr=fluid.ParamAttr(name="crfw", learning_rate=0.2))
    avg = L.mean(cost)
    dec = L.crf_decoding(em, param_attr=fluid.ParamAttr(name="crfw"))
    dl = L.crf_decoding(em, param_attr=fluid.ParamAttr(name="crfw"), label=target)
    ce = L.chunk_eval(dec, target, "IOB", 2)
    train(
        avg,
        [{"word": lod(1, [3, 5, 1], seed=i), "target": lod(1, [3, 5, 1], 5, i)} for i in range(3)],
        O.Adam(0.01),
        extra=[dec, dl] + list(ce),
        rn=False,
    )


@section
def crf_padded():
    em = L.data("em", [4, 3])
    lab = L.data("lab", [4], dtype="int64")
    ln = L.data("ln", [], dtype="int64")
    e = L.fc(em, 3, num_flatten_dims=2)
    c = L.linear_chain_crf(e, lab, param_attr=fluid.ParamAttr(name="cw"), length=ln)
    d = L.crf_decoding(e, fluid.ParamAttr(name="cw"), length=ln)
    r = np.random.RandomState(0)
    train(
        L.mean(c),
        [
            {
                "em": r.rand(2, 4, 3).astype("float32"),
                "lab": r.randint(0, 3, (2, 4)).astype("int64"),
                "ln": np.array([2, 4], "int64"),
            }
        ]
        * 2,
        O.SGD(0.1),
        [d],
    )


@section
def bilm_elmo():
    w = L.data("w", [1], dtype="int64", lod_level=1)
    nx = L.data("nx", [1], dtype="int64", lod_level=1)
    nr = L.data("nr", [1], dtype="int64", lod_level=1)
    e = L.embedding(w, [20, 6], param_attr="emb")
    fwd, _ = L.dynamic_lstmp(
        L.fc(e, 16, bias_attr=False),
        16,
        3,
        use_peepholes=False,
        proj_activation="identity",
        cell_clip=3.0,
        proj_clip=3.0,
    )
    bwd, _ = L.dynamic_lstmp(L.fc(e, 16), 16, 3, is_reverse=True, use_peepholes=True)

    def ls(h, l):
        return L.mean(L.softmax_with_cross_entropy(L.fc(h, 20, param_attr="smw", bias_attr="smb"), l))

    loss = (ls(fwd, nx) + ls(bwd, nr)) / 2.0
    train(
        loss,
        [
            {"w": lod(1, [3, 2], seed=i), "nx": lod(1, [3, 2], seed=i + 5), "nr": lod(1, [3, 2], seed=i + 9)}
            for i in range(3)
        ],
        O.Adagrad(
            0.1, regularization=fluid.regularizer.L2Decay(1e-3), grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0)
        ),
        [fwd, bwd],
        rn=False,
    )


@section
def simnet_pair():
    q, p, n = [L.data(k, [1], dtype="int64", lod_level=1) for k in "qpn"]

    def enc(x, t):
        e = L.embedding(x, [20, 8], param_attr="emb", padding_idx=0)
        if t == "bow":
            s = L.softsign(L.sequence_pool(e, "sum"))
        elif t == "cnn":
            s = fluid.nets.sequence_conv_pool(e, 6, 3, act="relu", pool_type="max", param_attr="cw")
        elif t == "gru":
            s = L.sequence_pool(
                L.dynamic_gru(L.fc(e, 18, param_attr="gw", bias_attr="gb"), 6, param_attr="gg", bias_attr="ggb"), "max"
            )
        else:
            s = L.sequence_last_step(
                L.dynamic_lstm(L.fc(e, 24, param_attr="lw", bias_attr="lb"), 24, param_attr="ll", bias_attr="llb")[0]
            )
        return L.fc(s, 5, param_attr="fw", bias_attr="fb")

    for t in ["bow", "cnn", "gru", "lstm"]:
        m, st = fluid.Program(), fluid.Program()
        with fluid.program_guard(m, st), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
            q, p, n = [L.data(k, [1], dtype="int64", lod_level=1) for k in "qpn"]
            a, b, c = enc(q, t), enc(p, t), enc(n, t)
            cp, cn = L.cos_sim(a, b), L.cos_sim(a, c)
            ml = L.elementwise_max(
                L.fill_constant_batch_size_like(cp, [-1, 1], "float32", 0.0),
                L.elementwise_add(
                    L.elementwise_sub(cn, cp), L.fill_constant_batch_size_like(cp, [-1, 1], "float32", 0.1)
                ),
            )
            loss = L.mean(ml)
            train(
                loss,
                [
                    {
                        "q": lod(1, [2, 1, 4], seed=i),
                        "p": lod(1, [1, 2, 2], seed=i + 1),
                        "n": lod(1, [3, 1, 1], seed=i + 2),
                    }
                    for i in range(3)
                ],
                O.Adam(0.02),
                [cp, cn],
            )


@section
def transformer_pad_mask():
    B, T, D, H = 2, 5, 8, 2
    ids = L.data("ids", [T, 1], dtype="int64")
    pos = L.data("pos", [T, 1], dtype="int64")
    mask = L.data("mask", [T, 1])
    y = L.data("y", [1], dtype="int64")
    x = L.embedding(ids, [20, D], param_attr=fluid.ParamAttr(name="e")) * D**0.5 + L.embedding(
        pos, [T, D], param_attr=fluid.ParamAttr(name="p", trainable=False)
    )
    x = L.layer_norm(x, begin_norm_axis=2)
    am = L.matmul(mask, mask, transpose_y=True)
    am = L.scale(am, scale=10000.0, bias=-1.0, bias_after_scale=False)
    am = L.stack([am] * H, axis=1)
    am.stop_gradient = True

    def heads(v):
        return L.transpose(L.reshape(v, [0, 0, H, D // H], inplace=True), [0, 2, 1, 3])

    q, k, v = [heads(L.fc(x, D, num_flatten_dims=2, bias_attr=False)) for _ in range(3)]
    w = L.softmax(L.matmul(L.scale(q, (D // H) ** -0.5), k, transpose_y=True) + am)
    o = L.matmul(w, v)
    o = L.reshape(L.transpose(o, [0, 2, 1, 3]), [0, 0, D])
    x = L.layer_norm(x + L.fc(o, D, num_flatten_dims=2), 2)
    f = L.fc(L.fc(x, 16, num_flatten_dims=2, act="gelu"), D, num_flatten_dims=2)
    x = L.layer_norm(x + f, begin_norm_axis=2, epsilon=1e-6)
    first = L.squeeze(L.slice(x, [1], [0], [1]), [1])
    lg = L.fc(L.fc(first, D, act="tanh"), 3)
    ce, pr = L.softmax_with_cross_entropy(lg, y, return_softmax=True)
    loss = L.mean(ce)
    r = np.random.RandomState(0)
    train(
        loss,
        [
            {
                "ids": r.randint(0, 20, (B, T, 1)).astype("int64"),
                "pos": np.tile(np.arange(T).reshape(1, T, 1), (B, 1, 1)).astype("int64"),
                "mask": np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], "float32").reshape(B, T, 1),
                "y": np.array([[0], [2]], "int64"),
            }
        ]
        * 4,
        O.Adam(L.noam_decay(D, 4), beta1=0.9, beta2=0.98, epsilon=1e-9),
        [pr, w],
    )


@section
def nested_lod_doc():
    w = L.data("w", [1], dtype="int64", lod_level=2)
    y = L.data("y", [1], dtype="int64")
    e = L.embedding(w, [20, 6])
    s = L.sequence_pool(e, "average")
    d = L.sequence_pool(s, "max")
    p = L.fc(d, 2, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    t = fluid.create_lod_tensor(np.arange(8).reshape(8, 1).astype("int64"), [[2, 1], [3, 1, 4]], pl)
    train(loss, [{"w": t, "y": np.array([[0], [1]], "int64")}] * 2, O.SGD(0.5), [s, d, e], rn=False)


@section
def ctc_padded():
    lg = L.data("lg", [6, 2, 5], append_batch_size=False)
    lab = L.data("lab", [3], dtype="int32")
    ll = L.data("ll", [], dtype="int64")
    bl = L.data("bl", [], dtype="int64")
    f = L.fc(lg, 5, num_flatten_dims=2)
    r = np.random.RandomState(0)
    c = L.warpctc(f, lab, input_length=ll, label_length=bl)
    o, ol = L.ctc_greedy_decoder(L.transpose(f, [1, 0, 2]), 0, input_length=L.reshape(ll, [-1, 1]), padding_value=-1)
    train(
        L.mean(c),
        [
            {
                "lg": r.rand(6, 2, 5).astype("float32"),
                "lab": np.array([[1, 2, 0], [3, 3, 1]], "int32"),
                "ll": np.array([6, 6], "int64"),
                "bl": np.array([2, 3], "int64"),
            }
        ]
        * 2,
        O.SGD(0.1),
        [o, ol],
    )


@section
def basic_rnns():
    from paddle.fluid.contrib.layers import basic_gru, basic_lstm

    x = L.data("x", [4, 5])
    ln = L.data("ln", [], dtype="int32")
    r = np.random.RandomState(0)
    o, lh, lc = basic_lstm(
        x, None, None, 6, num_layers=2, sequence_length=ln, bidirectional=True, batch_first=True, dropout_prob=0.0
    )
    o2, lh2 = basic_gru(x, None, 6, num_layers=1, sequence_length=ln, bidirectional=True)
    loss = L.mean(o) + L.mean(o2)
    train(
        loss,
        [{"x": r.rand(3, 4, 5).astype("float32"), "ln": np.array([2, 4, 3], "int32")}] * 3,
        O.SGD(0.5),
        [o, lh, lc, o2, lh2],
    )
