import math
import os
import sys
import argparse
import functools
import paddle
from kit import draw, fluid, np, section, show, train
L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


def F(*s):
    return R.rand(*s).astype("float32")


@section
def train_test_programs_py_reader():
    def net(is_train):
        reader = L.py_reader(capacity=4, shapes=[[-1, 4], [-1, 1]], dtypes=["float32", "int64"], name="train" if is_train else "test", use_double_buffer=True)
        x, y = L.read_file(reader)
        p = L.fc(x, 3, act="softmax")
        loss = L.mean(L.cross_entropy(p, y))
        acc = L.accuracy(p, y)
        if is_train:
            O.Adam(0.1).minimize(loss)
        return reader, loss, acc

    main, startup, test = fluid.Program(), fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        with fluid.unique_name.guard():
            tr, tl, ta = net(True)
    with fluid.program_guard(test, startup):
        with fluid.unique_name.guard():
            er, el, ea = net(False)
    test = test.clone(for_test=True)
    R.seed(0)
    xs, ys = F(8, 4), R.randint(0, 3, (8, 1)).astype("int64")

    def rd():
        for i in range(8):
            yield xs[i], ys[i]

    tr.decorate_paddle_reader(paddle.batch(rd, 4))
    er.decorate_sample_list_generator(paddle.batch(rd, 4)) if hasattr(er, "decorate_sample_list_generator") else er.decorate_paddle_reader(paddle.batch(rd, 4))
    exe = fluid.Executor(pl)
    exe.run(startup)
    draw(main)
    for ep in range(2):
        for prog, r, fs in ((main, tr, [tl, ta]), (test, er, [el, ea])):
            r.start()
            try:
                while True:
                    show(exe.run(prog, fetch_list=[f.name for f in fs]))
            except fluid.core.EOFException:
                r.reset()


@section
def infer_script():
    x = L.data("pixel", [1, 8, 8])
    y = L.data("label", [1], dtype="int64")
    c = fluid.nets.simple_img_conv_pool(x, 4, 3, 2, 2, act="relu")
    c = L.batch_norm(c)
    p = L.fc(L.dropout(c, 0.5), 10, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    acc = L.accuracy(p, y)
    test = fluid.default_main_program().clone(for_test=True)
    O.Momentum(0.01, 0.9).minimize(loss)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    R.seed(1)
    a, b = F(4, 1, 8, 8), R.randint(0, 10, (4, 1)).astype("int64")
    show(exe.run(test, feed={"pixel": a, "label": b}, fetch_list=[loss, acc, p]))
    fluid.io.save_inference_model("inf.model", ["pixel"], [p], exe, main_program=test, params_filename="__params__", model_filename="__model__")
    print(sorted(os.listdir("inf.model")))
    with fluid.scope_guard(fluid.core.Scope()):
        prog, feeds, fetches = fluid.io.load_inference_model("inf.model", exe, "__model__", "__params__")
        print(feeds, [f.name for f in fetches][0][:5], [o.type for o in prog.global_block().ops][:4])
        r = exe.run(prog, feed={feeds[0]: a}, fetch_list=fetches)
        show(r)
        print(np.argsort(-r[0])[0][:3])
        cp = fluid.CompiledProgram(prog)
        show(exe.run(cp, feed={feeds[0]: a[:1]}, fetch_list=fetches))


@section
def auc_states():
    p = L.data("p", [2])
    y = L.data("y", [1], dtype="int64")
    auc, batch_auc, states = L.auc(p, y, num_thresholds=200, slide_steps=2)
    total, correct = L.create_tensor("int32") if False else L.create_global_var([1], 0, "int32", persistable=True), L.create_global_var([1], 0, "int32", persistable=True)
    acc = L.accuracy(p, y, k=1, total=total, correct=correct)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    R.seed(0)
    for i in range(3):
        a = F(6, 1)
        show(exe.run(feed={"p": np.hstack([1 - a, a]), "y": R.randint(0, 2, (6, 1)).astype("int64")}, fetch_list=[auc, batch_auc, acc, total, correct]))
    print(len(states), [s.shape for s in states])
    for s in states:
        t = fluid.global_scope().find_var(s.name).get_tensor()
        t.set(np.zeros(t.shape(), t._dtype() if False else "int64"), pl)
    show(exe.run(feed={"p": np.array([[0.1, 0.9]], "float32"), "y": np.array([[1]], "int64")}, fetch_list=[auc]))


@section
def nested_while_arrays():
    n = L.fill_constant([1], "int64", 3)
    i = L.fill_constant([1], "int64", 0)
    arr = L.array_write(L.fill_constant([2], "float32", 1.0), i)
    c = L.less_than(i, n)
    w = L.While(c)
    with w.block():
        v = L.array_read(arr, i)
        j = L.fill_constant([1], "int64", 0)
        acc = L.fill_constant([2], "float32", 0.0)
        c2 = L.less_than(j, i)
        w2 = L.While(c2)
        with w2.block():
            L.assign(acc + v, acc)
            L.increment(j, 1, in_place=True)
            L.less_than(j, i, cond=c2)
        L.increment(i, 1, in_place=True)
        L.array_write(v + acc + 1.0, i, arr)
        L.less_than(i, n, cond=c)
    out, idx = L.tensor_array_to_tensor(arr, axis=0, use_stack=True)
    exe = fluid.Executor(pl)
    show(exe.run(fetch_list=[out, idx, L.array_length(arr)]))




@section
def math_ops_on_variables():
    x = L.data("x", [3])
    y = L.data("y", [3])
    i = L.data("i", [1], dtype="int64")
    outs = [x + y, x - 1, 1 - x, x * y, 2 * x, x / y, 1 / x, x ** 2, 2 ** x, -x, x > y, x <= 0.5, x == y, x != y, i + 1, i * 2, i // 2, i % 2, x[0], x[:, 1:], x[:, -1], x.astype("int32"), L.cast(x > 0.5, "float32") * y, abs(x) if False else L.abs(x)]
    exe = fluid.Executor(pl)
    R.seed(2)
    r = exe.run(feed={"x": F(2, 3) + 0.1, "y": F(2, 3) + 0.2, "i": np.array([[3], [4]], "int64")}, fetch_list=outs)
    show(r)


@section
def losses_options():
    R.seed(3)
    x = L.data("x", [4])
    lab = L.data("lab", [1], dtype="int64")
    soft = L.data("soft", [4])
    s, sm = L.softmax_with_cross_entropy(x, lab, ignore_index=2, return_softmax=True)
    fs = [s, sm, L.softmax_with_cross_entropy(x, soft, soft_label=True), L.cross_entropy(L.softmax(x), soft, soft_label=True), L.cross_entropy(L.softmax(x), lab, ignore_index=1),
          L.sigmoid_cross_entropy_with_logits(x, soft, ignore_index=-1, normalize=True), L.square_error_cost(x, soft), L.smooth_l1(x, soft, sigma=2.0), L.huber_loss(x, soft, 0.3),
          L.log_loss(L.sigmoid(L.reduce_mean(x, 1, keep_dim=True)), L.reduce_max(soft, 1, keep_dim=True)), L.kldiv_loss(L.log(L.softmax(x)), soft, "batchmean"), L.kldiv_loss(x, soft, "none"),
          L.rank_loss(soft[:, 0:1], x[:, 0:1], x[:, 1:2]), L.margin_rank_loss(soft[:, 0:1], x[:, 0:1], x[:, 1:2], 0.2), L.bpr_loss(L.softmax(x), lab),
          L.mse_loss(x, soft), L.dice_loss(L.softmax(x), lab), L.label_smooth(soft, epsilon=0.2), L.teacher_student_sigmoid_loss(x[:, 0:1], soft[:, 0:1]), L.l2_normalize(x, 1), L.cos_sim(x, soft), L.sigmoid_focal_loss(x, L.cast(lab + 1, "int32"), L.fill_constant([1], "int32", 2))]
    exe = fluid.Executor(pl)
    show(exe.run(feed={"x": F(3, 4) - 0.5, "lab": np.array([[0], [2], [1]], "int64"), "soft": F(3, 4)}, fetch_list=fs))


@section
def argparse_main():
    ap = argparse.ArgumentParser(description=__doc__)
    add = functools.partial(ap.add_argument)
    add("--batch_size", type=int, default=4)
    add("--use_gpu", type=bool, default=False)
    args = ap.parse_args([])
    place = fluid.CUDAPlace(0) if args.use_gpu else fluid.CPUPlace()
    boundaries = [2, 4]
    lr = [0.1 * (0.1 ** i) for i in range(3)]
    x, y = L.data("x", [4]), L.data("y", [1], dtype="int64")
    out = L.fc(L.fc(x, 6, act="relu", param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-1.0 / math.sqrt(4), 1.0 / math.sqrt(4)))), 3)
    cost, prob = L.softmax_with_cross_entropy(out, y, return_softmax=True)
    avg = L.mean(x=cost)
    a1, a2 = L.accuracy(input=prob, label=y, k=1), L.accuracy(input=prob, label=y, k=2)
    for v in (avg, a1, a2):
        v.persistable = True
    opt = fluid.optimizer.Momentum(learning_rate=fluid.layers.piecewise_decay(boundaries=boundaries, values=lr), momentum=0.9, regularization=fluid.regularizer.L2Decay(1e-4))
    opt.minimize(avg)
    exe = fluid.Executor(place)
    exe.run(fluid.default_startup_program())
    draw()
    feeder = fluid.DataFeeder(place=place, feed_list=[x, y])
    R.seed(5)
    data = [(F(4), R.randint(0, 3)) for _ in range(10)]
    bs = fluid.BuildStrategy()
    bs.memory_optimize = True
    cp = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(loss_name=avg.name, build_strategy=bs, places=[place])
    for ep in range(2):
        for bid, batch in enumerate(paddle.batch(paddle.reader.shuffle(lambda: iter(data), 1), args.batch_size)()):
            l, t1, t2, r = exe.run(cp, fetch_list=[avg.name, a1.name, a2.name, opt._global_learning_rate().name], feed=feeder.feed(batch))
            print("Pass {0}, batch {1}, loss {2:.5f} acc {3:.3f} {4:.3f} lr {5:.5f}".format(ep, bid, np.mean(l), float(np.mean(t1)), np.mean(t2), np.array(r)[0]))
            sys.stdout.flush()


@section
def random_shapes():
    R.seed(0)
    outs = [L.uniform_random([2, 3], min=-2.0, max=2.0, seed=1), L.gaussian_random([100, 10], seed=2), L.uniform_random_batch_size_like(L.data("x", [3]), [-1, 5]), L.gaussian_random_batch_size_like(L.data("x", [3]), [-1, 5]),
            L.sampling_id(L.softmax(L.data("x", [3]))), L.randint(0, 5, [3]) if hasattr(L, "randint") else L.zeros([3], "int64"), L.random_crop(L.data("im", [3, 6, 6]), [3, 4, 4]), L.shuffle_channel(L.data("im4", [4, 2, 2]), 2)]
    exe = fluid.Executor(pl)
    r = exe.run(feed={"x": F(4, 3), "im": F(2, 3, 6, 6), "im4": F(1, 4, 2, 2)}, fetch_list=outs)
    print([(a.shape, a.dtype) for a in r])
    show(r[-1])
    a, b = exe.run(feed={"x": F(4, 3), "im": F(2, 3, 6, 6), "im4": F(1, 4, 2, 2)}, fetch_list=outs[:2])
    print(np.allclose(a, r[0]), np.allclose(b, r[1]))


@section
def tensor_utils():
    R.seed(6)
    x = L.data("x", [2, 3], append_batch_size=False)
    idx = L.data("idx", [2, 1], dtype="int64", append_batch_size=False)
    outs = [L.gather(x, idx), L.gather_nd(x, L.cast(idx, "int32")), L.scatter(x, L.reshape(idx, [2]), x * 2), L.scatter_nd_add(x, idx, x), L.scatter_nd(idx, x, [4, 3]), L.expand(x, [2, 1]), L.expand_as(x, L.concat([x, x], 0)),
            L.stack([x, x], 1), L.unstack(x, 0)[1], L.squeeze(L.unsqueeze(x, [1]), [1]), L.argmax(x, 1), L.argmin(x, 0), L.argsort(x, 1)[1], L.reverse(x, [0, 1]), L.where(x > 0.5), L.cumsum(x, 1, exclusive=True, reverse=True), L.pad(x, [0, 1, 1, 0], 0.5), L.pad_constant_like(L.concat([x, x], 0), x, 1.0),
            L.crop(x, shape=[1, 2], offsets=[1, 0]), L.crop_tensor(x, shape=[1, 2], offsets=[0, 1]), L.strided_slice(x, [1], [0], [3], [2]), L.slice(x, [0, 1], [0, 1], [1, 3]), L.multiplex([x, x + 1], L.cast(idx, "int32")), L.unique(L.reshape(idx, [2]))[0], L.unique_with_counts(L.reshape(idx, [2]))[2],
            L.one_hot(idx, 4), L.eye(3), L.diag(L.assign(np.array([1.0, 2.0], "float32"))), L.linspace(0, 1, 5, "float32"), L.range(0, 6, 2, "int32"), L.zeros_like(x), L.ones_like(x), L.shape(x), L.rank(x), L.size(x), L.is_empty(x), L.has_nan(x), L.isfinite(x), L.sums([x, x]), L.reduce_prod(x, [0]), L.reduce_all(x > 0), L.reduce_any(x > 0.9), L.clip(x, 0.2, 0.6), L.clip_by_norm(x, 0.5), L.transpose(x, [1, 0]), L.flatten(x), L.increment(L.fill_constant([1], "float32", 1.0), 2.0), L.triu(x) if hasattr(L, "triu") else x, L.shard_index(idx, 4, 2, 0), L.space_to_depth(L.reshape(L.concat([x, x, x, x], 0), [1, 4, 2, 3]), 1) if False else x, L.pixel_shuffle(L.reshape(L.concat([x, x, x, x], 0), [1, 4, 2, 3]), 2), L.temporal_shift(L.reshape(L.concat([x, x, x, x], 0), [2, 4, 1, 3]), 2, 0.25)]
    exe = fluid.Executor(pl)
    show(exe.run(feed={"x": F(2, 3), "idx": np.array([[1], [0]], "int64")}, fetch_list=outs))
