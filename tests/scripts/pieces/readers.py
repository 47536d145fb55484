from kit import draw, fluid, np, section, show
import paddle
import threading


def gen(n, seed=0):
    def r():
        rs = np.random.RandomState(seed)
        for i in range(n):
            yield rs.rand(4).astype("float32"), int(i % 3)

    return r


def build(reader_vars):
    img, label = reader_vars
    h = fluid.layers.fc(img, 5, act="relu")
    p = fluid.layers.fc(h, 3, act="softmax")
    return fluid.layers.mean(fluid.layers.cross_entropy(p, label)), p


@section
def py_reader_start_reset():
    rd = fluid.layers.py_reader(
        capacity=8, shapes=[(-1, 4), (-1, 1)], dtypes=["float32", "int64"], name="train_reader", use_double_buffer=True
    )
    rd.decorate_paddle_reader(paddle.batch(gen(20), 6))
    loss, p = build(fluid.layers.read_file(rd))
    fluid.optimizer.Adam(0.05).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for ep in range(3):
        rd.start()
        k = 0
        try:
            while True:
                (l,) = exe.run(fetch_list=[loss.name])
                k += 1
                print("%d %d %.5f" % (ep, k, l[0]))
        except fluid.core.EOFException:
            rd.reset()
            print("end of epoch", ep, k)


@section
def py_reader_tensor_provider():
    rd = fluid.layers.py_reader(capacity=4, shapes=[[-1, 4], [-1, 1]], dtypes=["float32", "int64"], lod_levels=[0, 0])

    def prov():
        rs = np.random.RandomState(3)
        for i in range(3):
            yield rs.rand(5, 4).astype("float32"), rs.randint(0, 3, (5, 1)).astype("int64")

    rd.decorate_tensor_provider(prov)
    loss, p = build(fluid.layers.read_file(rd))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    rd.start()
    for i in range(3):
        show(exe.run(fetch_list=[loss]))
    try:
        exe.run(fetch_list=[loss])
    except fluid.core.EOFException as e:
        print("EOF", isinstance(e, Exception))
    rd.reset()
    rd.start()
    show(exe.run(fetch_list=[loss]))
    rd.reset()


@section
def create_py_reader_by_data():
    img = fluid.layers.data("img", [4])
    label = fluid.layers.data("label", [1], dtype="int64")
    rd = fluid.layers.create_py_reader_by_data(capacity=4, feed_list=[img, label], name="r2")
    img, label = fluid.layers.read_file(rd)
    loss, p = build((img, label))
    rd.decorate_sample_list_generator(paddle.batch(gen(12), 4))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    rd.start()
    while True:
        try:
            show(exe.run(fetch_list=[loss, label]))
        except fluid.core.EOFException:
            rd.reset()
            break


@section
def PyReader_noniter():
    img = fluid.layers.data("img", [4])
    label = fluid.layers.data("label", [1], dtype="int64")
    rd = fluid.io.PyReader(feed_list=[img, label], capacity=4, iterable=False)
    loss, p = build((img, label))
    rd.decorate_sample_generator(gen(11), batch_size=4)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for e in range(2):
        rd.start()
        while True:
            try:
                show(exe.run(fetch_list=[loss, label]))
            except fluid.core.EOFException:
                rd.reset()
                break


@section
def PyReader_iter_dict():
    img = fluid.layers.data("img", [4])
    label = fluid.layers.data("label", [1], dtype="int64")
    rd = fluid.io.PyReader(feed_list=[img, label], capacity=4, iterable=True, return_list=False)
    loss, p = build((img, label))
    rd.decorate_sample_generator(gen(11), batch_size=4, drop_last=False, places=fluid.CPUPlace())
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    for data in rd():
        print(type(data).__name__, sorted(data[0].keys()))
        show(exe.run(feed=data, fetch_list=[loss]))
    for data in rd:
        show(exe.run(feed=data[0], fetch_list=[loss]))


@section
def DataLoader_batch_two_places():
    img = fluid.data("img", [None, 4])
    label = fluid.data("label", [None, 1], dtype="int64")
    loss, p = build((img, label))
    ld = fluid.io.DataLoader.from_generator(feed_list=[img, label], capacity=4, iterable=True, use_double_buffer=False)

    def b():
        for i in range(5):
            yield np.full((2, 4), i, "float32"), np.full((2, 1), i % 3, "int64")

    ld.set_batch_generator(b, places=fluid.cpu_places(2))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    cp = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(loss_name=loss.name)
    for d in ld():
        print(len(d), [float(np.array(x["img"])[0][0]) for x in d])
        show(exe.run(cp, feed=d, fetch_list=[loss]))


@section
def DataLoader_noniter():
    img = fluid.data("img", [None, 4])
    label = fluid.data("label", [None, 1], dtype="int64")
    ld = fluid.io.DataLoader.from_generator(feed_list=[img, label], capacity=4, iterable=False)
    loss, p = build((img, label))
    ld.set_sample_generator(gen(10), batch_size=5, drop_last=True)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    ld.start()
    try:
        while True:
            show(exe.run(fetch_list=[loss]))
    except fluid.core.EOFException:
        print("eof")
        ld.reset()
