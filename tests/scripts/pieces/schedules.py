from kit import draw, fluid, np, section, show

L = fluid.layers
O = fluid.optimizer
R = np.random.RandomState(0)
FD = {"x": R.rand(5, 4).astype("float32"), "y": R.rand(5, 1).astype("float32")}


def net():
    x = L.data("x", [4])
    y = L.data("y", [1])
    p = L.fc(x, 1)
    return L.mean(L.square_error_cost(p, y))


S = dict(
    exp=lambda: L.exponential_decay(0.1, 3, 0.5),
    exps=lambda: L.exponential_decay(0.1, 3, 0.5, staircase=True),
    nat=lambda: L.natural_exp_decay(0.1, 2, 0.5),
    inv=lambda: L.inverse_time_decay(0.1, 2, 0.5, True),
    poly=lambda: L.polynomial_decay(0.1, 4, 0.01, 2.0),
    polyc=lambda: L.polynomial_decay(0.1, 3, 0.01, 1.0, cycle=True),
    piece=lambda: L.piecewise_decay([2, 4], [0.1, 0.05, 0.01]),
    cos=lambda: L.cosine_decay(0.1, 2, 3),
    noam=lambda: L.noam_decay(16, 3),
    noam2=lambda: L.learning_rate_scheduler.noam_decay(16, 3, learning_rate=2.0),
    warm=lambda: L.linear_lr_warmup(L.cosine_decay(0.1, 2, 3), 3, 0.0, 0.1),
    warmf=lambda: L.linear_lr_warmup(0.1, 3, 0.01, 0.1),
    warmp=lambda: L.linear_lr_warmup(L.piecewise_decay([4, 5], [0.1, 0.05, 0.01]), 2, 0.0, 0.1),
)
for k in sorted(S):

    def f():
        loss = net()
        lr = S[k]()
        opt = O.Momentum(lr, 0.9, regularization=fluid.regularizer.L2Decay(1e-3))
        opt.minimize(loss)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(fluid.default_startup_program())
        draw()
        print(lr.name, opt._global_learning_rate().name)
        for i in range(7):
            a, b = exe.run(feed=FD, fetch_list=[loss, lr])
            print("%.6f %.6f" % (a[0], b[0]))
        print(sorted(v.name for v in fluid.default_main_program().list_vars() if v.persistable))

    f.__name__ = k
    section(f)


@section
def ema():
    loss = net()
    step = L.autoincreased_step_counter()
    O.SGD(0.1).minimize(loss)
    e = O.ExponentialMovingAverage(0.9, thres_steps=step)
    e.update()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(4):
        show(exe.run(feed=FD, fetch_list=[loss]))
    g = lambda: np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())
    show(g())
    with e.apply(exe):
        show(g())
    show(g())
    with e.apply(exe, need_restore=False):
        show(g())
    e.restore(exe)
    show(g())


@section
def model_average():
    loss = net()
    O.Momentum(0.1, 0.9).minimize(loss)
    m = O.ModelAverage(0.15, min_average_window=2, max_average_window=4)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    g = lambda: np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor())
    for i in range(7):
        exe.run(feed=FD, fetch_list=[loss])
        with m.apply(exe):
            show(g())
    show(g())
    with m.apply(exe, need_restore=False):
        pass
    show(g())
    m.restore(exe)
    show(g())


@section
def two_phase():
    loss = net()
    opt = O.Adam(0.05)
    pg = opt.backward(loss)
    print([(a.name, b.name) for a, b in pg])
    pg = fluid.clip.append_gradient_clip_ops(pg)
    pg = fluid.regularizer.append_regularization_ops(pg, fluid.regularizer.L2Decay(0.1))
    ops = opt.apply_gradients(pg)
    print([o.type for o in ops])
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed=FD, fetch_list=[loss]))


@section
def apply_optimize():
    loss = net()
    opt = O.SGD(0.05)
    pg = opt.backward(loss)
    pg = [(p, L.scale(g, 0.5)) for p, g in pg]
    opt.apply_optimize(loss, fluid.default_startup_program(), pg)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed=FD, fetch_list=[loss]))


@section
def set_clip():
    loss = net()
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByGlobalNorm(0.1), param_list=["fc_0.w_0"])
    O.SGD(0.5).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed=FD, fetch_list=[loss]))


@section
def error_clip():
    x = L.data("x", [4])
    y = L.data("y", [1])
    h = L.fc(x, 3)
    h._set_error_clip(fluid.clip.ErrorClipByValue(max=0.01, min=-0.005)) if hasattr(
        h, "_set_error_clip"
    ) else h.set_error_clip(fluid.clip.ErrorClipByValue(0.01))
    p = L.fc(h, 1)
    loss = L.mean(L.square_error_cost(p, y))
    O.SGD(0.5).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed=FD, fetch_list=[loss, "fc_0.w_0"]))


@section
def no_grad_and_plist():
    loss = net()
    r = O.SGD(0.5).minimize(loss, parameter_list=["fc_0.w_0"], no_grad_set=None)
    print([(p.name, g.name) for p, g in r[1]])


@section
def nograd_set():
    loss = net()
    r = O.SGD(0.5).minimize(loss, no_grad_set=set(["fc_0.w_0"]))
    print([(p.name, g.name) for p, g in r[1]])


@section
def recompute():
    x = L.data("x", [4])
    y = L.data("y", [1])
    h1 = L.fc(x, 3, act="relu")
    h2 = L.fc(h1, 3, act="tanh")
    h3 = L.fc(h2, 3, act="sigmoid")
    loss = L.mean(L.square_error_cost(L.fc(h3, 1), y))
    o = O.RecomputeOptimizer(O.Adam(0.01))
    o._set_checkpoints([h1, h3])
    o.minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed=FD, fetch_list=[loss]))


@section
def set_lr_scope():
    loss = net()
    o = O.SGD(0.5)
    o.minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    lr = o._global_learning_rate()
    show(exe.run(feed=FD, fetch_list=[loss, lr]))
    fluid.global_scope().find_var(lr.name).get_tensor().set(np.array([0.001], "float32"), fluid.CPUPlace())
    show(exe.run(feed=FD, fetch_list=[loss, lr]))
    show(exe.run(feed=FD, fetch_list=[loss]))
