from kit import draw, ex, fluid, np, section, show

L = fluid.layers


def run(feed, fetch, rn=True, startup=True):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    r = exe.run(feed=feed, fetch_list=fetch, return_numpy=rn)
    show(r)
    return exe


@section
def while_array():
    i = L.zeros([1], "int64")
    n = L.fill_constant([1], "int64", 5)
    i.stop_gradient = True
    x = L.data("x", [3])
    x.stop_gradient = False
    mem = L.array_write(x, i)
    cond = L.less_than(i, n)
    w = L.While(cond)
    with w.block():
        pre = L.array_read(mem, i)
        h = L.fc(pre, 3, act="tanh", param_attr="w", bias_attr="b")
        L.increment(i, in_place=True)
        L.array_write(h, i, mem)
        L.less_than(i, n, cond=cond)
    last = L.array_read(mem, i)
    ln = L.array_length(mem)
    loss = L.mean(last)
    pg = fluid.backward.append_backward(loss)
    print([(p.name, g.name) for p, g in pg])
    run({"x": np.ones((2, 3), "float32")}, [loss, ln, last] + [g for p, g in pg] + ["x@GRAD"])


@section
def nested_while():
    i = L.fill_constant([1], "int32", 0)
    n = L.fill_constant([1], "int32", 3)
    s = L.fill_constant([1], "float32", 0.0)
    c = L.less_than(i, n)
    w = L.While(c, is_test=True)
    with w.block():
        j = L.fill_constant([1], "int32", 0)
        cj = L.less_than(j, i)
        wj = L.While(cj)
        with wj.block():
            L.assign(s + 1.0, s)
            L.increment(j, 1, True)
            L.less_than(j, i, cond=cj)
        L.increment(i, 1, True)
        L.less_than(i, n, cond=c)
    run({}, [s, i])


@section
def switch_lr():
    step = L.autoincreased_step_counter(counter_name="@cnt@", begin=0)
    lr = L.create_global_var([1], 0.0, "float32", persistable=True, name="lr")
    sf = L.cast(step, "float32")
    b1 = L.fill_constant([1], "float32", 2.0)
    b2 = L.fill_constant([1], "float32", 4.0)
    with L.Switch() as sw:
        with sw.case(L.less_than(sf, b1)):
            L.assign(L.fill_constant([1], "float32", 0.1), lr)
        with sw.case(L.less_than(sf, b2)):
            L.tensor.assign(input=np.array([0.01], "float32"), output=lr)
        with sw.default():
            L.assign(L.fill_constant([1], "float32", 0.001), lr)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for k in range(6):
        show(exe.run(fetch_list=[lr, step]))


@section
def ifelse():
    x = L.data("x", [2])
    y = L.data("y", [1])
    limit = L.fill_constant_batch_size_like(x, [-1, 1], "float32", 0.5)
    cond = L.less_than(y, limit)
    ie = L.IfElse(cond)
    with ie.true_block():
        d = ie.input(x)
        ie.output(L.fc(d, 3, param_attr="w1"), L.scale(d, 2.0))
    with ie.false_block():
        d = ie.input(x)
        ie.output(L.fc(d, 3, param_attr="w2"), L.scale(d, -1.0))
    a, b = ie()
    loss = L.mean(a) + L.mean(b)
    fluid.optimizer.SGD(0.1).minimize(loss)
    X = np.arange(8).reshape(4, 2).astype("float32")
    run({"x": X, "y": np.array([[0], [1], [0.2], [0.8]], "float32")}, [a, b, loss, "w1@GRAD", "w2@GRAD"])


@section
def cond_case_switch():
    x = L.data("x", [1], append_batch_size=False)
    x.stop_gradient = False
    a = L.cond(L.less_than(x, L.fill_constant([1], "float32", 1.0)), lambda: x * 2.0, lambda: x * x)
    b = L.case([(x < 0.5, lambda: x + 1.0), (x < 3.0, lambda: x + 10.0)], default=lambda: x - 1.0)
    idx = L.cast(x, "int32")
    c = L.switch_case(idx, {0: lambda: x * 5.0, 2: lambda: x * 7.0}, default=lambda: x * 9.0)
    d = L.cond(x < 1.0, lambda: (x, [x * 2.0, x * 3.0]), lambda: (x * 4.0, [x, x]))
    loss = L.mean(a + b + c + d[0] + d[1][0] + d[1][1])
    (g,) = fluid.gradients(loss, x)
    exe = fluid.Executor(fluid.CPUPlace())
    for v in [0.0, 0.7, 2.0, 5.0]:
        show(exe.run(feed={"x": np.array([v], "float32")}, fetch_list=[a, b, c, loss, g]))


@section
def while_loop_nested_struct():
    i = L.fill_constant([1], "int64", 0)
    a = L.fill_constant([2], "float32", 1.0)
    b = L.fill_constant([2], "float32", 2.0)

    def body(i, s):
        return [i + 1, {"p": s["p"] + s["q"], "q": s["q"] * 2.0}]

    o = L.while_loop(lambda i, s: i < 3, body, [i, {"p": a, "q": b}])
    run({}, [o[0], o[1]["p"], o[1]["q"]])


@section
def static_rnn():
    x = L.data("x", [5, 2, 3], append_batch_size=False)
    x.stop_gradient = False
    h0 = L.data("h0", [2, 4], append_batch_size=False)
    h0.stop_gradient = False
    rnn = L.StaticRNN()
    with rnn.step():
        w = rnn.step_input(x)
        p = rnn.memory(init=h0)
        q = rnn.memory(shape=[-1, 4], batch_ref=w, init_value=0.5)
        h = L.fc([w, p], 4, act="tanh")
        q2 = q * 0.5 + h
        rnn.update_memory(p, h)
        rnn.update_memory(q, q2)
        rnn.step_output(h)
        rnn.output(q2)
    a, b = rnn()
    loss = L.mean(a * b)
    pg = fluid.backward.append_backward(loss)
    R = np.random.RandomState(0)
    run(
        {"x": R.rand(5, 2, 3).astype("float32"), "h0": R.rand(2, 4).astype("float32")},
        [a, b, loss, "x@GRAD", "h0@GRAD"] + [g for _, g in pg],
    )


@section
def dynamic_rnn():
    w = L.data("w", [1], dtype="int64", lod_level=1)
    ctx = L.data("ctx", [4], lod_level=0)
    enc = L.data("enc", [4], lod_level=1)
    e = L.embedding(w, [12, 4])
    d = L.DynamicRNN()
    with d.block():
        t = d.step_input(e)
        s = d.static_input(enc)
        m = d.memory(init=ctx, need_reorder=True)
        z = d.memory(shape=[4], value=0.1)
        pooled = L.sequence_pool(s, "average")
        h = L.fc([t, m, pooled], 4, act="tanh")
        d.update_memory(m, h)
        d.update_memory(z, z + h)
        d.output(h, z)
    o, z = d()
    last = L.sequence_last_step(o)
    loss = L.mean(last) + L.mean(z)
    pg = fluid.backward.append_backward(loss)
    R = np.random.RandomState(1)
    pl = fluid.CPUPlace()
    f = {
        "w": fluid.create_lod_tensor(np.array([[1], [2], [3], [4], [5], [6]], "int64"), [[1, 3, 2]], pl),
        "ctx": R.rand(3, 4).astype("float32"),
        "enc": fluid.create_lod_tensor(R.rand(7, 4).astype("float32"), [[2, 1, 4]], pl),
    }
    run(f, [o, z, last, loss] + [g for _, g in pg], rn=False)


@section
def asserts():
    x = L.data("x", [1], append_batch_size=False)
    c = L.less_than(x, L.fill_constant([1], "float32", 1.0))
    L.Assert(c, [x], summarize=3)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(feed={"x": np.array([0.5], "float32")})
    try:
        exe.run(feed={"x": np.array([2.5], "float32")})
    except Exception as e:
        print(ex(e))


@section
def tensor_array_to_tensor():
    x = L.data("x", [2, 3], append_batch_size=False)
    x.stop_gradient = False
    i = L.zeros([1], "int64")
    arr = L.create_array("float32")
    L.array_write(x, i, arr)
    j = L.fill_constant([1], "int64", 1)
    L.array_write(x * 2.0, j, arr)
    o, idx = L.tensor_array_to_tensor(arr, axis=1, use_stack=False)
    o2, i2 = L.tensor_array_to_tensor(arr, axis=0, use_stack=True)
    loss = L.reduce_sum(o) + L.reduce_sum(o2)
    (g,) = fluid.gradients(loss, x)
    run({"x": np.arange(6).reshape(2, 3).astype("float32")}, [o, idx, o2, i2, g])
