import os
import sys
import paddle
import paddle.fluid.incubate.data_generator as dg
from kit import attempt, draw, fluid, np, section, show
L = fluid.layers
pl = fluid.CPUPlace()


def write(name, rows):
    with open(name, "w") as f:
        for r in rows:
            f.write(r + "\n")


def slots(n, seed=0):
    r = np.random.RandomState(seed)
    out = []
    for i in range(n):
        k = r.randint(1, 4)
        ids = " ".join(str(v) for v in r.randint(0, 20, k))
        d = " ".join("%.3f" % v for v in r.rand(3))
        out.append("%d %s 3 %s 1 %d" % (k, ids, d, r.randint(0, 2)))
    return out


def model():
    ids = L.data("ids", [1], dtype="int64", lod_level=1)
    dense = L.data("dense", [3])
    lab = L.data("lab", [1], dtype="int64")
    e = L.sequence_pool(L.embedding(ids, [20, 4], is_sparse=True), "sum")
    p = L.fc(L.concat([e, dense], 1), 2, act="softmax")
    return [ids, dense, lab], L.mean(L.cross_entropy(p, lab)), p


@section
def queue_dataset():
    vs, loss, p = model()
    fluid.optimizer.SGD(0.1).minimize(loss)
    write("a.txt", slots(10))
    write("b.txt", slots(7, 1))
    d = fluid.DatasetFactory().create_dataset("QueueDataset")
    d.set_batch_size(4)
    d.set_thread(1)
    d.set_filelist(["a.txt", "b.txt"])
    d.set_pipe_command("cat")
    d.set_use_var(vs)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    r = exe.train_from_dataset(fluid.default_main_program(), d, thread=1, debug=False, fetch_list=[loss], fetch_info=["loss"], print_period=2)
    print(r)
    show(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor()))
    r = exe.infer_from_dataset(fluid.default_main_program().clone(for_test=True), d, thread=1)
    show(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor()))


@section
def in_memory():
    vs, loss, p = model()
    fluid.optimizer.Adagrad(0.1).minimize(loss)
    write("a.txt", slots(11))
    d = fluid.DatasetFactory().create_dataset("InMemoryDataset")
    d.set_batch_size(3)
    d.set_thread(1)
    d.set_filelist(["a.txt"])
    d.set_use_var(vs)
    d.load_into_memory()
    print(d.get_memory_data_size(), type(d).__name__)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(2):
        exe.train_from_dataset(fluid.default_main_program(), d)
    show(np.array(fluid.global_scope().find_var("fc_0.w_0").get_tensor()))
    d.local_shuffle()
    d.global_shuffle()
    print(d.get_shuffle_data_size())
    d.release_memory()
    d.preload_into_memory()
    d.wait_preload_done()
    print(d.get_memory_data_size())
    print(d.desc().count("slots {"), "batch_size: 3" in d.desc())
    attempt(lambda: fluid.DatasetFactory().create_dataset("NoDataset"))


class Gen(dg.MultiSlotDataGenerator):
    def generate_sample(self, line):
        def it():
            a, b = line.strip().split("|")
            yield [("ids", [int(v) for v in a.split(",")]), ("dense", [float(v) for v in b.split(",")]), ("lab", [len(a) % 2])]
        return it


@section
def generator():
    g = Gen()
    g.set_batch(2)
    write("raw.txt", ["1,2|0.1,0.2,0.3", "4|0.5,0.5,0.5", "7,8,9|0,0,1"])
    g.run_from_memory() if False else None
    old = sys.stdin
    sys.stdin = open("raw.txt")
    try:
        g.run_from_stdin()
    finally:
        sys.stdin = old

    class S(dg.MultiSlotStringDataGenerator):
        def generate_sample(self, line):
            def it():
                yield [("w", line.split()), ("l", ["1"])]
            return it

        def generate_batch(self, samples):
            def it():
                for s in reversed(samples):
                    yield s
            return it
    s = S()
    s.set_batch(2)
    write("raw2.txt", ["a b", "c", "d e f"])
    sys.stdin = open("raw2.txt")
    try:
        s.run_from_stdin()
    finally:
        sys.stdin = old
    attempt(lambda: Gen()._gen_str(3))
    attempt(lambda: dg.DataGenerator().generate_sample("x"))

    class M(dg.MultiSlotDataGenerator):
        def generate_sample(self, line):
            def it():
                for k in range(3):
                    yield [("a", [k, k + 1]), ("b", [0.5])]
            return it
    m = M()
    m.run_from_memory()


@section
def fetch_handler():
    vs, loss, p = model()
    write("a.txt", slots(6))
    d = fluid.DatasetFactory().create_dataset()
    d.set_batch_size(2)
    d.set_filelist(["a.txt"])
    d.set_use_var(vs)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())

    class H(fluid.executor.FetchHandler):
        def handler(self, res):
            pass
    h = H(var_dict={"p": p}, period_secs=60)
    exe.infer_from_dataset(fluid.default_main_program(), d, fetch_handler=h)
    print(h.period_secs, list(h.var_dict))
    attempt(lambda: exe.train_from_dataset(fluid.default_main_program(), None))


@section
def feed_desc():
    write("d.proto", ['name: "MultiSlotDataFeed"', "batch_size: 2", "multi_slot_desc {", "  slots {", '    name: "words"', '    type: "uint64"',
                      "    is_dense: false", "    is_used: false", "  }", "  slots {", '    name: "label"', '    type: "uint64"', "    is_dense: false",
                      "    is_used: false", "  }", "}"])
    d = fluid.DataFeedDesc("d.proto")
    d.set_batch_size(128)
    d.set_dense_slots(["words"])
    d.set_use_slots(["words", "label"])
    print(d.desc())


@section
def paddle_readers():
    def r():
        for i in range(7):
            yield i

    def r2():
        for i in range(7):
            yield i, i * 2
    P = paddle.reader
    print(list(P.map_readers(lambda a, b: a + b, r, r)()), list(P.chain(r, r)())[:9], list(P.compose(r, r2)())[:2])
    print(sorted(P.shuffle(r, 3)()), list(P.firstn(r, 3)()), list(P.buffered(r, 2)()), list(P.cache(r)()))
    print(sorted(P.xmap_readers(lambda x: x * x, r, 2, 4)()), list(P.xmap_readers(lambda x: x * x, r, 2, 4, order=True)()))
    print([b for b in paddle.batch(r, 3)()], [b for b in paddle.batch(r, 3, drop_last=True)()])
    print(sorted(P.multiprocess_reader([r, r])()))
    a = P.compose(r, P.firstn(r, 3))
    attempt(lambda: list(a()))
    print(len(list(P.compose(r, P.firstn(r, 3), check_alignment=False)())))
    attempt(lambda: paddle.batch(r, 0))
    write("t.txt", ["a", "b"])
    f = P.Fake() if hasattr(P, "Fake") else None


@section
def dataset_modules():
    print(paddle.dataset.uci_housing.feature_names[:3])
    print(paddle.dataset.common.md5file.__name__, os.path.basename(paddle.dataset.common.DATA_HOME))
    im = (np.arange(4 * 5 * 3).reshape(4, 5, 3)).astype("uint8")
    I = paddle.dataset.image
    print(I.to_chw(im).shape, I.center_crop(im, 3).shape, I.left_right_flip(im)[0, 0].tolist(), I.resize_short(im, 8).shape)
    print(I.simple_transform(im, 6, 4, False, mean=[1.0, 2.0, 3.0]).shape, I.random_crop(im, 3).shape)


@section
def lod_feeds():
    x = L.data("x", [2], lod_level=2)
    y = L.sequence_pool(x, "sum")
    z = L.sequence_pool(y, "max")
    exe = fluid.Executor(pl)
    t = fluid.create_lod_tensor(np.arange(12).reshape(6, 2).astype("float32"), [[2, 1], [1, 2, 3]], pl)
    print(t.lod(), t.recursive_sequence_lengths(), t.has_valid_recursive_sequence_lengths(), t.shape())
    show(exe.run(feed={"x": t}, fetch_list=[y, z], return_numpy=False))
    u = fluid.LoDTensor()
    u.set(np.ones((3, 2), "float32"), pl)
    u.set_recursive_sequence_lengths([[1, 2]])
    print(u.lod(), u._dtype() if hasattr(u, "_dtype") else "", np.array(u).sum())
    u.set_lod([[0, 1, 3]])
    print(u.recursive_sequence_lengths())
    v = fluid.create_random_int_lodtensor([[2, 3]], [1], pl, 0, 5)
    print(v.shape(), v.lod(), np.array(v).dtype, np.array(v).max() <= 5)
    w = fluid.create_lod_tensor(u, [[2, 1]], pl)
    print(w.lod(), fluid.create_lod_tensor([[1, 2], [3]], [[2, 1]], pl).shape())
    arr = fluid.LoDTensorArray()
    arr.append(u)
    print(len(arr), arr[0].lod())
    attempt(lambda: fluid.create_lod_tensor(np.ones((3, 2)), [[2, 2]], pl))
    attempt(lambda: fluid.create_lod_tensor("abc", [[2, 2]], pl))
    f = fluid.DataFeeder([x.name], pl) if False else fluid.DataFeeder([x], pl)
    g = f.feed([([[[1, 2]], [[3, 4], [5, 6]]],), ([[[7, 8]]],)])
    print(g["x"].lod(), np.array(g["x"]).tolist())




@section
def empty_reader():
    x = fluid.data("x", [None, 3])
    l = L.mean(x)
    exe = fluid.Executor(pl)
    ld = fluid.io.DataLoader.from_generator([x], capacity=2)
    ld.set_batch_generator(lambda: iter([]), places=pl)
    print([1 for _ in ld()])
    ld.set_sample_list_generator(lambda: iter([]), places=pl)
    print([1 for _ in ld()])
    attempt(lambda: fluid.io.DataLoader.from_generator([x], capacity=2)() and None)


class DS(fluid.io.Dataset):
    def __init__(self, n):
        self.n = n

    def __getitem__(self, i):
        return np.full((3,), i, "float32"), np.array([i], "int64")

    def __len__(self):
        return self.n


@section
def map_dataset_loader():
    x = fluid.data("x", [None, 3])
    y = fluid.data("y", [None, 1], "int64")
    s = L.reduce_sum(x)
    exe = fluid.Executor(pl)
    for w in (0, 2):
        ld = fluid.io.DataLoader(DS(7), feed_list=[x, y], places=pl, batch_size=3, shuffle=False, drop_last=False, num_workers=w)
        print(len(ld))
        for d in ld():
            show(exe.run(feed=d[0] if isinstance(d, list) else d, fetch_list=[s, y]))
    b = fluid.io.BatchSampler(dataset=DS(7), batch_size=2, drop_last=True)
    print(list(b), len(b))
    b = fluid.io.BatchSampler(indices=[3, 1, 2], batch_size=2)
    print(list(b))
    ld = fluid.io.DataLoader(DS(7), feed_list=[x, y], places=pl, batch_sampler=fluid.io.BatchSampler(dataset=DS(4), batch_size=2), return_list=True)
    for d in ld():
        print(type(d).__name__, len(d))
    attempt(lambda: fluid.io.DataLoader(DS(7), places=pl))
    attempt(lambda: fluid.io.DataLoader([1], [x], places=pl))
