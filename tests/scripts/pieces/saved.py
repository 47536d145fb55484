from kit import draw, ex, fluid, np, os, section, show


def net():
    x = fluid.layers.data("x", [4])
    y = fluid.layers.data("y", [1], dtype="int64")
    h = fluid.layers.fc(x, 6, act="tanh")
    h = fluid.layers.batch_norm(h)
    p = fluid.layers.fc(h, 3, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(p, y))
    return x, y, p, loss


R = np.random.RandomState(0)
FD = {"x": R.rand(6, 4).astype("float32"), "y": R.randint(0, 3, (6, 1)).astype("int64")}


def ls(d):
    r = []
    for b, _, fs in os.walk(d):
        for f in fs:
            r.append(os.path.relpath(os.path.join(b, f), d))
    return sorted(r)


@section
def persist_roundtrip():
    x, y, p, loss = net()
    test = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.Adam(0.01).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        exe.run(feed=FD, fetch_list=[loss])
    fluid.io.save_persistables(exe, "./pers")
    print(ls("./pers"))
    fluid.io.save_params(exe, "./par")
    print(ls("./par"))
    fluid.io.save_persistables(exe, "./persf", filename="all")
    print(ls("./persf"), os.path.getsize("./persf/all"))
    fluid.io.save_vars(
        exe,
        "./v",
        vars=[v for v in fluid.default_main_program().list_vars() if v.persistable and v.name.startswith("fc_0.w")],
    )
    print(ls("./v"))
    fluid.io.save_vars(
        exe, "./v2", main_program=fluid.default_main_program(), predicate=lambda v: v.persistable and "moment" in v.name
    )
    print(ls("./v2"))
    (a,) = exe.run(test, feed=FD, fetch_list=[p])
    with fluid.scope_guard(fluid.Scope()):
        exe.run(fluid.default_startup_program())
        fluid.io.load_persistables(exe, "./persf", filename="all")
        (b,) = exe.run(test, feed=FD, fetch_list=[p])
        print(np.abs(a - b).max())
        show(exe.run(feed=FD, fetch_list=[loss]))
    with fluid.scope_guard(fluid.Scope()):
        exe.run(fluid.default_startup_program())
        fluid.io.load_params(exe, "./par")
        show(exe.run(feed=FD, fetch_list=[loss]))
        fluid.io.load_vars(exe, "./v2", predicate=lambda v: v.persistable and "moment" in v.name)
        show(exe.run(feed=FD, fetch_list=[loss]))


@section
def save_load_15():
    x, y, p, loss = net()
    fluid.optimizer.Momentum(0.01, 0.9).minimize(loss)
    prog = fluid.default_main_program()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    exe.run(feed=FD, fetch_list=[loss])
    fluid.save(prog, "./m/ck")
    print(ls("m"))
    st = fluid.io.load_program_state("./m/ck")
    print(sorted(st.keys()))
    show(st["fc_0.w_0"])
    show(exe.run(feed=FD, fetch_list=[loss]))
    fluid.load(prog, "./m/ck", exe)
    show(exe.run(feed=FD, fetch_list=[loss]))
    st["fc_0.w_0"] = st["fc_0.w_0"] * 0
    fluid.io.set_program_state(prog, st)
    show(exe.run(feed=FD, fetch_list=[loss]))
    fluid.io.save_persistables(exe, "./q")
    st2 = fluid.io.load_program_state("./q")
    print(sorted(st2.keys()))
    fluid.load(prog, "./q", exe)
    try:
        fluid.save(prog, "./m/")
    except Exception as e:
        print(ex(e))
    bad = dict(st)
    bad["fc_0.w_0"] = np.zeros((2, 2), "float32")
    try:
        fluid.io.set_program_state(prog, bad)
    except Exception as e:
        print(ex(e))
    bad = dict(st)
    bad["other"] = np.zeros((2, 2), "float32")
    fluid.io.set_program_state(prog, bad)


@section
def inference_prune():
    x, y, p, loss = net()
    acc = fluid.layers.accuracy(p, y)
    fluid.optimizer.Adam(0.01).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    exe.run(feed=FD, fetch_list=[loss])
    print(fluid.io.save_inference_model("inf", ["x"], [p], exe, model_filename="__m__", params_filename="__p__"))
    print(ls("inf"))
    print(fluid.io.save_inference_model("inf2", ["x"], p, exe, export_for_deployment=False))
    print(ls("inf2"))
    print(fluid.io.save_inference_model("inf3", ["x", "y"], [p, loss], exe, program_only=True))
    print(ls("inf3"))
    s = fluid.Scope()
    with fluid.scope_guard(s):
        prog, feeds, fetches = fluid.io.load_inference_model(
            "inf", exe, model_filename="__m__", params_filename="__p__"
        )
        print(feeds, [f.name for f in fetches], [o.type for o in prog.global_block().ops])
        show(exe.run(prog, feed={feeds[0]: FD["x"]}, fetch_list=fetches))
        print(
            [
                (v.name, v.shape, v.persistable)
                for v in sorted(prog.list_vars(), key=lambda v: v.name)
                if v.name not in ("feed", "fetch")
            ]
        )
    try:
        fluid.io.save_inference_model("inf4", ["nope"], [p], exe)
    except Exception as e:
        print(ex(e))
    try:
        fluid.io.save_inference_model("inf4", "x", [1], exe)
    except Exception as e:
        print(ex(e))
    try:
        fluid.io.load_inference_model("noexist", exe)
    except Exception as e:
        print(ex(e))
    try:
        fluid.io.load_inference_model("inf", exe)
    except Exception as e:
        print(ex(e))


@section
def pv():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for q in fluid.default_main_program().all_parameters():
        print(q.name)
        show(fluid.io.get_parameter_value(q, exe))
    print([v.name for v in fluid.default_main_program().list_vars() if fluid.io.is_persistable(v)])
    print([v.name for v in fluid.default_main_program().list_vars() if fluid.io.is_parameter(v)])
    print([v.name for v in fluid.io.get_program_persistable_vars(fluid.default_main_program())])
    print(fluid.io.get_program_parameter(fluid.default_main_program())[0].name)
