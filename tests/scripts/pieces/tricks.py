from kit import draw, fluid, np, section, show, train

L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


@section
def py_func():
    R.seed(0)

    def tanh(x):
        return np.tanh(np.array(x))

    def tanh_grad(y, dy):
        return np.array(dy) * (1 - np.square(np.array(y)))

    def dbg(x):
        print("dbg", np.array(x).shape)

    x = L.data("x", [4])
    h = L.fc(x, 3)
    prog = fluid.default_main_program()
    nh = prog.current_block().create_var(name="nh", dtype="float32", shape=h.shape)
    h2 = L.py_func(tanh, h, nh, backward_func=tanh_grad, skip_vars_in_backward_input=h)
    L.py_func(dbg, h2, None)
    loss = L.mean(h2 * h2)
    train(loss, [{"x": R.rand(3, 4).astype("float32")} for _ in range(3)], O.SGD(0.5), [h2])


@section
def py_func_multi():
    R.seed(0)

    def f(a, b):
        return np.array(a) + np.array(b), np.array(a) * np.array(b)

    def g(a, b, o1, o2, d1, d2):
        a, b, d1, d2 = [np.array(v) for v in (a, b, d1, d2)]
        return d1 + d2 * b, d1 + d2 * a

    x = L.data("x", [3])
    y = L.data("y", [3])
    x.stop_gradient = False
    y.stop_gradient = False
    blk = fluid.default_main_program().current_block()
    o = [blk.create_var(name=n, dtype="float32", shape=[-1, 3]) for n in "ab"]
    L.py_func(f, [x, y], o, backward_func=g)
    loss = L.reduce_sum(o[0] * o[1])
    gr = fluid.gradients(loss, [x, y])
    exe = fluid.Executor(pl)
    show(exe.run(feed={"x": R.rand(2, 3).astype("float32"), "y": R.rand(2, 3).astype("float32")}, fetch_list=o + gr))


@section
def shared_two_programs():
    R.seed(0)

    def gen(z):
        return L.fc(L.fc(z, 6, act="relu", name="g1"), 4, act="tanh", name="g2")

    def dis(x):
        return L.fc(L.fc(x, 6, act="leaky_relu", name="d1"), 1, name="d2")

    dp, gp = fluid.Program(), fluid.Program()
    st = fluid.default_startup_program()
    with fluid.program_guard(dp, st), fluid.unique_name.guard():
        x = L.data("x", [4])
        z = L.data("z", [3])
        fk = gen(z)
        rl = dis(x)
        fl = L.mean(
            L.sigmoid_cross_entropy_with_logits(rl, L.fill_constant_batch_size_like(x, [-1, 1], "float32", 1.0))
        )
    with fluid.program_guard(dp, st), fluid.unique_name.guard("q"):
        pass
    with fluid.program_guard(gp, st), fluid.unique_name.guard():
        z = L.data("z", [3])
        o = dis(gen(z))
        gl = L.mean(L.sigmoid_cross_entropy_with_logits(o, L.fill_constant_batch_size_like(z, [-1, 1], "float32", 1.0)))
        gparams = [p.name for p in gp.global_block().all_parameters() if p.name.startswith("g")]
        print(sorted(gparams))
        O.Adam(0.05, name="ga").minimize(gl, parameter_list=gparams)
    with fluid.program_guard(dp, st):
        O.Adam(0.05, name="da").minimize(
            fl, parameter_list=[p.name for p in dp.global_block().all_parameters() if p.name.startswith("d")]
        )
    exe = fluid.Executor(pl)
    exe.run(st)
    draw(gp)
    for i in range(3):
        show(
            exe.run(
                dp, feed={"x": R.rand(4, 4).astype("float32"), "z": R.rand(4, 3).astype("float32")}, fetch_list=[fl]
            )
        )
        show(exe.run(gp, feed={"z": R.rand(4, 3).astype("float32")}, fetch_list=[gl]))
    print(sorted(v.name for v in gp.list_vars() if v.persistable))


@section
def dqn_sync():
    R.seed(0)

    def q(s, n):
        return L.fc(
            L.fc(s, 6, act="relu", param_attr=n + "_w1", bias_attr=n + "_b1"),
            2,
            param_attr=n + "_w2",
            bias_attr=n + "_b2",
        )

    lp, sp = fluid.Program(), fluid.Program()
    st = fluid.default_startup_program()
    with fluid.program_guard(lp, st):
        s = L.data("s", [4])
        a = L.data("a", [1], dtype="int32")
        r = L.data("r", [])
        s2 = L.data("s2", [4])
        t = L.data("t", [], dtype="bool")
        qv = q(s, "policy")
        tv = q(s2, "target")
        best = L.reduce_max(tv, dim=1)
        best.stop_gradient = True
        tgt = r + (1.0 - L.cast(t, "float32")) * 0.9 * best
        oh = L.cast(L.one_hot(a, 2), "float32")
        pv = L.reduce_sum(oh * qv, dim=1)
        cost = L.reduce_mean(L.square_error_cost(pv, tgt))
        O.Adam(0.01, epsilon=1e-3).minimize(cost)
    with fluid.program_guard(sp, st):
        gb = sp.global_block()
        pairs = []
        for p in lp.global_block().all_parameters():
            if p.name.startswith("policy"):
                v = gb.create_parameter(shape=p.shape, dtype=p.dtype, name=p.name) if False else gb._clone_variable(p)
                w = gb._clone_variable(lp.global_block().var(p.name.replace("policy", "target")))
                L.assign(v, w)
    exe = fluid.Executor(pl)
    exe.run(st)
    draw(lp)
    exe.run(sp)
    for i in range(3):
        show(
            exe.run(
                lp,
                feed={
                    "s": R.rand(5, 4).astype("float32"),
                    "a": R.randint(0, 2, (5, 1)).astype("int32"),
                    "r": R.rand(5).astype("float32"),
                    "s2": R.rand(5, 4).astype("float32"),
                    "t": np.array([0, 1, 0, 0, 1], "bool"),
                },
                fetch_list=[cost, pv],
            )
        )
    show(np.array(fluid.global_scope().find_var("target_w1").get_tensor()))
    exe.run(sp)
    print(
        np.allclose(
            np.array(fluid.global_scope().find_var("target_w1").get_tensor()),
            np.array(fluid.global_scope().find_var("policy_w1").get_tensor()),
        )
    )


@section
def policy_gradients():
    R.seed(0)
    s = L.data("s", [4])
    a = L.data("a", [1], dtype="int64")
    v = L.data("v", [1])
    old = L.data("old", [1])
    h = L.fc(s, 8, act="tanh")
    p = L.fc(h, 3, act="softmax")
    val = L.fc(h, 1)
    lp_ = -1.0 * L.cross_entropy(p, a)
    ratio = L.exp(lp_ - L.log(old))
    adv = v - val
    adv.stop_gradient = True
    sur = L.elementwise_min(ratio * adv, L.clip(ratio, 0.8, 1.2) * adv)
    ent = L.reduce_sum(-1.0 * p * L.log(p + 1e-8), dim=1, keep_dim=True)
    loss = -1.0 * L.reduce_mean(sur + 0.01 * ent) + 0.5 * L.reduce_mean(L.square(v - val))
    cd = L.distributions.Categorical(L.fc(h, 3)) if hasattr(L, "distributions") else None
    e2 = cd.entropy()
    loss = loss - 0.001 * L.reduce_mean(e2)
    nd = (
        L.Normal(L.fc(h, 2), L.exp(L.fc(h, 2)))
        if hasattr(L, "Normal")
        else L.distributions.Normal(L.fc(h, 2), L.exp(L.fc(h, 2)))
    )
    act = L.data("act", [2])
    loss = loss - L.reduce_mean(nd.log_prob(act)) + 0.1 * L.reduce_mean(nd.entropy())
    train(
        loss,
        [
            {
                "s": R.rand(5, 4).astype("float32"),
                "a": R.randint(0, 3, (5, 1)).astype("int64"),
                "v": R.rand(5, 1).astype("float32"),
                "old": R.rand(5, 1).astype("float32") + 0.2,
                "act": R.rand(5, 2).astype("float32"),
            }
            for _ in range(3)
        ],
        O.Adam(0.01, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.5)),
        [sur, e2],
    )


@section
def weight_norm():
    R.seed(0)
    x = L.data("x", [4])
    h = L.fc(x, 3, param_attr=fluid.WeightNormParamAttr(dim=None, name="wn0"))
    p = L.fc(h, 1, param_attr=fluid.WeightNormParamAttr(dim=1, name="wn"))
    loss = L.mean(p)
    print([q.name for q in fluid.default_main_program().all_parameters()])
    train(loss, [{"x": R.rand(3, 4).astype("float32")}] * 3, O.SGD(0.1), [p])


@section
def evaluators():
    R.seed(0)
    p = L.data("p", [3])
    y = L.data("y", [1], dtype="int64")
    acc = L.accuracy(p, y)
    r = L.data("r", [1], dtype="int64", lod_level=1)
    h = L.data("h", [1], dtype="int64", lod_level=1)
    e = fluid.evaluator.EditDistance(h, r)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    e.reset(exe)
    t = lambda v, l: fluid.create_lod_tensor(np.array(v).reshape(-1, 1).astype("int64"), [l], pl)
    for i in range(2):
        show(
            exe.run(
                feed={
                    "p": R.rand(2, 3).astype("float32"),
                    "y": np.array([[1], [2]], "int64"),
                    "r": t([1, 2, 3], [2, 1]),
                    "h": t([1, 3, 3, 1], [2, 2]),
                },
                fetch_list=[acc] + e.metrics,
            )
        )
    print(e.eval(exe))
    e.reset(exe)


@section
def nan_check():
    R.seed(0)
    x = L.data("x", [2])
    y = L.log(x)
    exe = fluid.Executor(pl)
    show(
        exe.run(
            feed={"x": np.array([[1.0, -1.0]], "float32")}, fetch_list=[y, L.isfinite(y), L.has_nan(y), L.has_inf(y)]
        )
    )


@section
def mixed_precision():
    R.seed(0)
    x = L.data("x", [4])
    y = L.data("y", [1])
    loss = L.mean(L.square_error_cost(L.fc(L.fc(x, 4, act="relu"), 1), y))
    o = fluid.contrib.mixed_precision.decorate(
        O.Momentum(0.1, 0.9), init_loss_scaling=8.0, use_dynamic_loss_scaling=True
    )
    o.minimize(loss)
    print(
        o.get_loss_scaling().name[:12],
        [op.type for op in fluid.default_main_program().global_block().ops if op.type == "cast"].__len__() > 0,
    )
