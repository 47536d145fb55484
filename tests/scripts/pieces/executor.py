from kit import draw, ex, fluid, np, section, show
import paddle


def net():
    x = fluid.layers.data("x", [13])
    y = fluid.layers.data("y", [1])
    p = fluid.layers.fc(x, 1, name="pred")
    loss = fluid.layers.mean(fluid.layers.square_error_cost(p, y))
    return x, y, p, loss


R = np.random.RandomState(0)
X = R.rand(10, 13).astype("float32")
Y = R.rand(10, 1).astype("float32")


@section
def cache_and_mix():
    x, y, p, loss = net()
    fluid.optimizer.SGD(0.05).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(4):
        a, b, g = exe.run(feed={"x": X, "y": Y}, fetch_list=[loss, p.name, "pred.w_0@GRAD"], use_program_cache=True)
        show(a, b, g)


@section
def numpy_false():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    t = exe.run(fluid.default_main_program(), {"x": X, "y": Y}, [p, loss], return_numpy=False)
    print(type(t).__name__, type(t[0]).__name__, t[0].shape(), t[0].lod(), t[0]._dtype())
    print(np.array(t[0])[:3])


@section
def feed_lodtensor():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    tx = fluid.LoDTensor()
    tx.set(X, fluid.CPUPlace())
    show(exe.run(feed={"x": tx, "y": Y}, fetch_list=[loss]))


@section
def feed_list_single():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed=[{"x": X, "y": Y}], fetch_list=[loss]))


@section
def missing_feed():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    try:
        exe.run(feed={"x": X}, fetch_list=[loss])
    except fluid.core.EnforceNotMet as e:
        print("enforce")
    try:
        exe.run(feed={"x": X, "y": Y}, fetch_list=["nothere"])
    except fluid.core.EnforceNotMet as e:
        print("enforce2")


@section
def wrong_shape():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    try:
        exe.run(feed={"x": X[:, :5], "y": Y}, fetch_list=[loss])
    except fluid.core.EnforceNotMet as e:
        print("enforce")
        print("mul" in str(e))
    except Exception as e:
        print("other", ex(e))


@section
def no_startup():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    try:
        exe.run(feed={"x": X, "y": Y}, fetch_list=[loss])
    except fluid.core.EnforceNotMet as e:
        print("enforce")
    except Exception as e:
        print(ex(e))


@section
def fetch_bad_type():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    exe.run(feed={"x": X, "y": Y}, fetch_list=[3])


@section
def fetch_not_list():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": X, "y": Y}, fetch_list=loss))


@section
def fetch_tuple():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": X, "y": Y}, fetch_list=(loss, p)))


@section
def program_str():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run("abc")


@section
def fetch_feed_and_param():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": X, "y": Y}, fetch_list=["x", "pred.w_0", "pred.b_0", x]))


@section
def close_exe():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    exe.close()
    exe.run(feed={"x": X, "y": Y}, fetch_list=[loss])


@section
def scope_arg():
    x, y, p, loss = net()
    exe = fluid.Executor(fluid.CPUPlace())
    s = fluid.Scope()
    exe.run(fluid.default_startup_program(), scope=s)
    draw(scope=s)
    show(exe.run(feed={"x": X, "y": Y}, fetch_list=[loss], scope=s))
    print(fluid.global_scope().find_var("pred.w_0") is None, s.find_var("pred.w_0") is None)
    print(s.find_var("pred.w_0").get_tensor().shape(), np.array(s.find_var("pred.w_0").get_tensor()).dtype)


@section
def print_tensor():
    t = fluid.create_lod_tensor(np.arange(6).reshape(6, 1).astype("int64"), [[2, 4]], fluid.CPUPlace())
    print(t)
    print(t.lod(), t.recursive_sequence_lengths(), t.has_valid_recursive_sequence_lengths())
    t.set_lod([[0, 3, 6]])
    print(t.recursive_sequence_lengths())
    t.set_recursive_sequence_lengths([[1, 5]])
    print(t.lod())
    print(np.array(t).tolist())
    t2 = fluid.create_random_int_lodtensor([[2, 1]], [1], fluid.CPUPlace(), 0, 5)
    print(t2.shape(), t2.lod())
    t3 = fluid.create_lod_tensor([[1, 2], [3]], [[2, 1]], fluid.CPUPlace())
    print(t3.shape(), np.array(t3).tolist(), np.array(t3).dtype)
    a = fluid.LoDTensorArray()
    a.append(t)
    a.append(t3)
    print(len(a))
    print(a[1].shape())
