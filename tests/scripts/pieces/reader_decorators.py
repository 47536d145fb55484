from kit import ex, fluid, np, section, show
import paddle, itertools

r10 = lambda: iter(range(10))


@section
def decorators():
    rd = paddle.reader
    print(list(rd.map_readers(lambda a, b: a * b, r10, r10)()))
    print(list(rd.chain(r10, lambda: iter("ab"))()))
    print(list(rd.compose(r10, r10)())[:3])
    try:
        print(list(rd.compose(r10, lambda: iter(range(9)))()))
    except rd.ComposeNotAligned as e:
        print("not aligned", isinstance(e, ValueError))
    print(len(list(rd.compose(r10, lambda: iter(range(9)), check_alignment=False)())))
    print(list(rd.buffered(r10, 3)()))
    print(list(rd.firstn(r10, 4)()))
    print(sorted(rd.shuffle(r10, 5)()))
    c = rd.cache(r10)
    print(list(c()), list(c()))
    print(sorted(rd.xmap_readers(lambda v: v * 2, r10, 3, 4)()))
    print(list(rd.xmap_readers(lambda v: v * 2, r10, 3, 4, order=True)()))
    print(sorted(rd.multiprocess_reader([r10, r10], use_pipe=False)()))
    print(sorted(rd.multiprocess_reader([r10, r10])()))
    print(sorted(fluid.io.xmap_readers(lambda v: v + 1, r10, 2, 4)()))


@section
def batches():
    print(list(paddle.batch(r10, 3)()), list(paddle.batch(r10, 3, drop_last=True)()))
    print([len(b) for b in fluid.io.batch(r10, 4)()])
    try:
        paddle.batch(r10, 0)
    except Exception as e:
        print(ex(e))
    try:
        paddle.batch(r10, -3)
    except Exception as e:
        print(ex(e))
    try:
        paddle.batch(r10, 2.5)
    except Exception as e:
        print(ex(e))


@section
def feeder_lod2():
    w = fluid.layers.data("w", [1], dtype="int64", lod_level=2)
    e = fluid.layers.data("e", [3], lod_level=1)
    f = fluid.DataFeeder([w, e], fluid.CPUPlace())
    d = f.feed([([[1, 2], [3]], np.ones((2, 3))), ([[4]], [[1, 2, 3]])])
    show(d["w"], d["e"])


@section
def feed_parallel():
    x = fluid.layers.data("x", [2])
    f = fluid.DataFeeder([x], fluid.CPUPlace())
    out = list(f.feed_parallel([[([1, 2],)], [([3, 4],), ([5, 6],)]], num_places=2))
    for o in out:
        show(o["x"])

    def rd():
        for i in range(5):
            yield [([i, i],), ([i + 0.5, i],)]

    dr = f.decorate_reader(rd, multi_devices=True, num_places=2)
    for b in dr():
        print(len(b))
        show(b[0]["x"])
    dr = f.decorate_reader(rd, multi_devices=False)
    for b in dr():
        show(b["x"])


@section
def compat():
    import paddle.compat as cpt

    print(
        cpt.to_text(b"abc"),
        cpt.to_bytes("abc"),
        cpt.round(2.5),
        cpt.floor_division(7, 2),
        cpt.get_exception_message(ValueError("x")),
    )
    print(cpt.long_type(3), cpt.to_text([b"a", b"b"]), sorted(cpt.to_text({b"q"})))
