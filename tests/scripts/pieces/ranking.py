from kit import attempt, draw, ex, fluid, np, section, show, train

L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


@section
def ctr_dnn_auc():
    R.seed(0)
    dense = L.data("dense", [4])
    slots = [L.data("C%d" % i, [1], dtype="int64", lod_level=1) for i in range(6)]
    label = L.data("label", [1], dtype="int64")
    embs = [
        L.sequence_pool(
            L.embedding(
                s,
                [50, 5],
                is_sparse=True,
                is_distributed=True,
                param_attr=fluid.ParamAttr(name="SparseFeatFactors", initializer=fluid.initializer.Uniform()),
            ),
            "average",
        )
        for s in slots
    ]
    x = L.concat(embs + [dense], 1)
    for k in (8, 6):
        x = L.fc(
            x,
            k,
            act="relu",
            param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(scale=1 / np.sqrt(x.shape[1]))),
        )
    p = L.fc(x, 2, act="softmax")
    cost = L.cross_entropy(p, label)
    loss = L.reduce_sum(cost)
    auc, bauc, st = L.auc(p, label, num_thresholds=2**12, slide_steps=20)
    acc = L.accuracy(p, label)
    fs = []
    for i in range(4):
        f = {"dense": R.rand(5, 4).astype("float32"), "label": R.randint(0, 2, (5, 1)).astype("int64")}
        for k in range(6):
            n = R.randint(1, 4, 5).tolist()
            f["C%d" % k] = fluid.create_lod_tensor(R.randint(0, 50, (sum(n), 1)).astype("int64"), [n], pl)
        fs.append(f)
    print(auc.name, [s.name for s in st], [v.shape for v in st])
    exe = train(loss, fs, O.Adam(1e-2, lazy_mode=True), [auc, bauc, acc])
    for s in st:
        fluid.global_scope().find_var(s.name).get_tensor().set(np.zeros(s.shape, "int64"), pl)
    show(exe.run(feed=fs[0], fetch_list=[auc, bauc]))


@section
def fm_deepfm():
    R.seed(0)
    ids = L.data("ids", [6, 1], dtype="int64")
    val = L.data("val", [6])
    y = L.data("y", [1])
    fv = L.reshape(val, [-1, 6, 1])
    w1 = L.reshape(
        L.embedding(
            ids,
            [40, 1],
            param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L1DecayRegularizer(1e-4)),
            padding_idx=0,
        ),
        [-1, 6, 1],
    )
    f1 = L.reduce_sum(w1 * fv, 1)
    e = L.reshape(L.embedding(ids, [40, 4], is_sparse=False), [-1, 6, 4]) * fv
    s2 = L.square(L.reduce_sum(e, 1))
    q2 = L.reduce_sum(L.square(e), 1)
    f2 = 0.5 * L.reduce_sum(s2 - q2, 1, keep_dim=True)
    d = L.reshape(e, [-1, 24])
    d = L.fc(d, 8, act="relu")
    d = L.fc(d, 1)
    p = L.sigmoid(f1 + f2 + d)
    loss = L.reduce_sum(L.log_loss(p, y))
    p2 = L.concat([1 - p, p], 1)
    auc, _, _ = L.auc(p2, L.cast(y, "int64"), slide_steps=0)
    train(
        loss,
        [
            {
                "ids": R.randint(0, 40, (4, 6, 1)).astype("int64"),
                "val": R.rand(4, 6).astype("float32"),
                "y": R.randint(0, 2, (4, 1)).astype("float32"),
            }
            for _ in range(4)
        ],
        O.Adam(0.01),
        [p, auc],
    )


@section
def dcn_xdeepfm():
    R.seed(0)
    x = L.data("x", [6])
    y = L.data("y", [1])
    x0 = x
    xl = x
    for i in range(2):
        w = L.create_parameter(
            [6], "float32", name="cw%d" % i, default_initializer=fluid.initializer.TruncatedNormal(scale=0.1)
        )
        b = L.create_parameter([6], "float32", name="cb%d" % i, is_bias=True)
        xlw = L.reduce_sum(xl * w, 1, keep_dim=True)
        xl = x0 * xlw + b + xl
    lg = L.fc(L.concat([xl, L.fc(x, 4, act="relu")], 1), 1)
    loss = L.mean(L.sigmoid_cross_entropy_with_logits(lg, y)) + 1e-3 * sum(
        [L.reduce_sum(L.square(p)) for p in fluid.default_main_program().all_parameters() if p.name.startswith("cw")]
    )
    train(
        loss,
        [{"x": R.rand(4, 6).astype("float32"), "y": R.randint(0, 2, (4, 1)).astype("float32")} for _ in range(3)],
        O.RMSProp(0.01, momentum=0.9),
        ["cw0"],
    )


@section
def gru4rec_tagspace():
    R.seed(0)
    src = L.data("src", [1], dtype="int64", lod_level=1)
    dst = L.data("dst", [1], dtype="int64", lod_level=1)
    e = L.embedding(src, [30, 6], param_attr=fluid.ParamAttr(name="emb", learning_rate=10.0))
    f = L.fc(e, 18, param_attr=fluid.ParamAttr(learning_rate=2.0))
    g = L.dynamic_gru(f, 6)
    p = L.fc(g, 30, act="softmax")
    c = L.cross_entropy(p, dst)
    a = L.accuracy(p, dst, k=5)
    loss = L.mean(c)
    t = lambda s: fluid.create_lod_tensor(np.random.RandomState(s).randint(0, 30, (7, 1)).astype("int64"), [[3, 4]], pl)
    train(loss, [{"src": t(i), "dst": t(i + 1)} for i in range(3)], O.Adagrad(0.05), [a], rn=False)


@section
def dssm_bpr():
    R.seed(0)
    q = L.data("q", [8])
    d = L.data("d", [8])
    n = L.data("n", [8])
    f = lambda v: L.fc(L.fc(v, 6, act="tanh", param_attr="a"), 4, act="tanh", param_attr="b", bias_attr="bb")
    a, b, c = L.cos_sim(f(q), f(d)), L.cos_sim(f(q), f(n)), None
    ls = -1 * L.log(L.slice(L.softmax(L.concat([a, b], 1) * 5.0), [1], [0], [1]))
    bp = L.bpr_loss(
        L.softmax(L.concat([a, b], 1)), L.cast(L.fill_constant_batch_size_like(a, [-1, 1], "float32", 0.0), "int64")
    )
    rk = L.rank_loss(L.fill_constant_batch_size_like(a, [-1, 1], "float32", 1.0), a, b)
    mr = L.margin_rank_loss(L.fill_constant_batch_size_like(a, [-1, 1], "float32", 1.0), a, b, 0.1)
    loss = L.mean(ls) + L.mean(bp) + L.mean(rk) + L.mean(mr)
    train(loss, [{k: R.rand(3, 8).astype("float32") for k in "qdn"} for _ in range(3)], O.SGD(0.3), [ls, bp, rk, mr])


@section
def din_attention():
    R.seed(0)
    h = L.data("h", [1], dtype="int64", lod_level=1)
    t = L.data("t", [1], dtype="int64")
    y = L.data("y", [1])
    e = L.embedding(h, [20, 4], param_attr="item")
    te = L.embedding(t, [20, 4], param_attr="item")
    tx = L.sequence_expand(te, e)
    cat = L.concat([e, tx, e - tx, e * tx], 1)
    a = L.fc(L.fc(cat, 6, act="sigmoid"), 1)
    w = L.sequence_softmax(a)
    s = L.sequence_pool(L.elementwise_mul(e, w, axis=0), "sum")
    lg = L.fc(L.concat([s, te], 1), 1)
    loss = L.mean(L.sigmoid_cross_entropy_with_logits(lg, y))
    train(
        loss,
        [
            {
                "h": fluid.create_lod_tensor(R.randint(0, 20, (6, 1)).astype("int64"), [[1, 3, 2]], pl),
                "t": R.randint(0, 20, (3, 1)).astype("int64"),
                "y": np.array([[0], [1], [1]], "float32"),
            }
            for _ in range(3)
        ],
        O.SGD(0.5),
        [w],
        rn=False,
    )


@section
def mmoe_esmm():
    R.seed(0)
    x = L.data("x", [6])
    y1 = L.data("y1", [1])
    y2 = L.data("y2", [1])
    ex = [L.fc(x, 4, act="relu", name="e%d" % i) for i in range(3)]
    E = L.reshape(L.concat(ex, 1), [-1, 3, 4])
    outs = []
    for k in range(2):
        g = L.fc(x, 3, act="softmax", name="g%d" % k)
        g = L.reshape(g, [-1, 3, 1])
        z = L.reduce_sum(L.elementwise_mul(E, g), 1)
        outs.append(L.fc(z, 2, act="softmax"))
    ctr, cvr = L.slice(outs[0], [1], [1], [2]), L.slice(outs[1], [1], [1], [2])
    ctcvr = L.elementwise_mul(ctr, cvr)
    loss = L.mean(L.log_loss(ctr, y1, epsilon=1e-6)) + L.mean(L.log_loss(L.clip(ctcvr, 1e-6, 1 - 1e-6), y2))
    train(
        loss,
        [
            {
                "x": R.rand(4, 6).astype("float32"),
                "y1": R.randint(0, 2, (4, 1)).astype("float32"),
                "y2": R.randint(0, 2, (4, 1)).astype("float32"),
            }
            for _ in range(3)
        ],
        O.Adam(0.05),
        [ctr, ctcvr],
    )


@section
def ncf_metrics():
    R.seed(0)
    u = L.data("u", [1], dtype="int64")
    i = L.data("i", [1], dtype="int64")
    y = L.data("y", [1], dtype="int64")
    g = L.embedding(u, [10, 4]) * L.embedding(i, [12, 4])
    m = L.fc(
        L.concat(
            [
                L.embedding(u, [10, 4], param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(0, 0.01))),
                L.embedding(i, [12, 4]),
            ],
            1,
        ),
        4,
        act="relu",
    )
    p = L.fc(L.concat([g, m], 1), 2, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    O.Adam(0.01).minimize(loss)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    A = fluid.metrics.Auc("a", num_thresholds=200)
    P = fluid.metrics.Precision()
    Rc = fluid.metrics.Recall()
    ac = fluid.metrics.Accuracy()
    C = fluid.metrics.CompositeMetric()
    C.add_metric(P)
    C.add_metric(Rc)
    for k in range(3):
        f = {
            "u": R.randint(0, 10, (6, 1)).astype("int64"),
            "i": R.randint(0, 12, (6, 1)).astype("int64"),
            "y": R.randint(0, 2, (6, 1)).astype("int64"),
        }
        l, pv = exe.run(feed=f, fetch_list=[loss, p])
        A.update(pv, f["y"])
        C.update(np.round(pv[:, 1:]).astype("int32"), f["y"].astype("int32"))
        ac.update(0.5, 6)
        show(l)
        print(A.eval(), C.eval(), ac.eval())
    print(P.get_config().keys() if hasattr(P, "get_config") else "", str(A) if False else "")
    A.reset()
    P.reset()
    attempt(lambda: fluid.metrics.Accuracy().eval())
    print(P.eval())


@section
def metrics2():
    R.seed(0)
    E = fluid.metrics.EditDistance("e")
    E.update(np.array([[1.0], [0.0], [2.0]]), np.array([3]))
    print(E.eval())
    CE = fluid.metrics.ChunkEvaluator()
    CE.update(np.array([3]), np.array([4]), np.array([2]))
    print(CE.eval())
    W = fluid.average.WeightedAverage()
    W.add(2.0, 1)
    W.add(np.array([4.0]), 3)
    print(W.eval())
    W.reset()
    attempt(lambda: W.eval())
    attempt(lambda: W.add("x", 1))
    attempt(lambda: fluid.metrics.EditDistance().eval())
    attempt(lambda: fluid.metrics.Auc().update([1], [2]))
    attempt(lambda: CE.update(1.5, 2, 3))
    attempt(lambda: fluid.metrics.Precision().update([1], [1]))
    attempt(lambda: fluid.metrics.CompositeMetric().add_metric(3))
    attempt(lambda: fluid.metrics.Accuracy().update("a", 1))
