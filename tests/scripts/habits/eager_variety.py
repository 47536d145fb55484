import os
import paddle
from paddle.fluid.dygraph import to_variable, guard, Layer, Linear
from kit import attempt, draw, drawn, fluid, np, section, show
L = fluid.layers
O = fluid.optimizer
D = fluid.dygraph
pl = fluid.CPUPlace()


def dy(f):
    def g():
        with guard(fluid.CPUPlace()):
            f()
    g.__name__ = f.__name__
    section(g)
    return f


def det(m, s=1.0):
    for n, p in m.named_parameters():
        if not n.endswith("_variance"):
            p.set_value(drawn(n, p.shape, s))


def F(seed, *s):
    return np.random.RandomState(seed).rand(*s).astype("float32")


@dy
def eager_optimizers():
    make = [lambda p: O.SGD(0.1, parameter_list=p), lambda p: O.Momentum(0.1, 0.9, parameter_list=p, use_nesterov=True), lambda p: O.Adam(0.1, parameter_list=p),
            lambda p: O.Adamax(0.1, parameter_list=p), lambda p: O.Adagrad(0.1, parameter_list=p, initial_accumulator_value=0.1), lambda p: O.DecayedAdagrad(0.1, parameter_list=p),
            lambda p: O.Adadelta(0.1, parameter_list=p), lambda p: O.RMSProp(0.1, parameter_list=p, centered=True, momentum=0.3), lambda p: O.Ftrl(0.1, parameter_list=p, l1=0.01, l2=0.01),
            lambda p: O.Lamb(0.1, parameter_list=p, exclude_from_weight_decay_fn=lambda v: v.name.endswith("b_0")), lambda p: O.LarsMomentum(0.1, 0.9, parameter_list=p), lambda p: O.Dpsgd(0.1, clip=10.0, batch_size=4.0, sigma=0.0, parameter_list=p)]
    for mk in make:
        m = Linear(3, 2)
        for i, p in enumerate(m.parameters()):
            p.set_value(drawn("p%d" % i, p.shape, 1.0))
        opt = mk(m.parameters())
        for i in range(3):
            l = L.mean(L.square(m(to_variable(F(i, 4, 3))) - 1.0))
            l.backward()
            opt.minimize(l)
            m.clear_gradients()
        print(type(opt).__name__, sorted(k.split("_0_")[-1] for k in opt.state_dict()))
        show(m.weight.numpy(), l.numpy())
        sd = opt.state_dict()
        opt2 = mk(m.parameters())
        opt2.set_dict(sd)


@dy
def rare_layers():
    cases = [(D.PRelu("all"), [F(0, 2, 3) - 0.5]), (D.PRelu("element", input_shape=[2, 3]), [F(0, 2, 3) - 0.5]), (D.BilinearTensorProduct(2, 3, 4, act="tanh"), [F(1, 2, 2), F(2, 2, 3)]),
             (D.Conv2DTranspose(2, 3, 3, stride=2, padding=1, output_size=[6, 6]), [F(3, 1, 2, 3, 3)]), (D.Conv2DTranspose(4, 4, 2, groups=2, dilation=2), [F(3, 1, 4, 3, 3)]),
             (D.GroupNorm(4, 2, act="relu"), [F(4, 2, 4, 2, 2)]), (D.LayerNorm([2, 3], scale=False), [F(5, 4, 2, 3)]), (D.Embedding([5, 3], padding_idx=1), [np.array([[0], [1], [4]], "int64")]),
             (D.Pool2D(global_pooling=True, pool_type="avg"), [F(6, 1, 2, 3, 3)]), (D.Pool2D(3, "max", 2, 1, exclusive=False), [F(6, 1, 2, 5, 5)]), (D.TreeConv(5, 6, 1, 2), [F(7, 1, 4, 5), np.array([[[1, 2], [1, 3], [2, 4]]], "int32")]),
             (D.GRUUnit(9), [F(8, 2, 9), F(9, 2, 3)]), (D.InstanceNorm(2), [F(10, 2, 2, 3, 3)]), (D.SpectralNorm([2, 3], dim=1), [F(11, 2, 3)])]
    for m, args in cases:
        det(m)
        out = m(*[to_variable(a) for a in args])
        out = out if isinstance(out, (list, tuple)) else [out]
        print(type(m).__name__, [n for n, _ in m.named_parameters()])
        show([o.numpy() for o in out])


@dy
def losses_in_eager():
    x, y = to_variable(F(0, 3, 4)), to_variable(F(1, 3, 4))
    lab = to_variable(np.array([[0], [2], [1]], "int64"))
    for m, a in ((D.L1Loss(), (x, y)), (D.MSELoss(), (x, y)), (D.BCELoss(), (x, y)), (D.L1Loss("sum"), (x, y)), (D.NLLLoss(), (L.log(L.softmax(x)), L.reshape(lab, [-1]))), (D.BCELoss(reduction="none"), (x, y))):
        attempt(lambda: m(*a).numpy())
    attempt(lambda: L.softmax_with_cross_entropy(x, lab).numpy())
    attempt(lambda: L.warpctc(to_variable(F(2, 5, 2, 4)), to_variable(np.array([[1, 2], [3, 0]], "int32")), input_length=to_variable(np.array([5, 4], "int64")), label_length=to_variable(np.array([2, 1], "int64"))).numpy())
    attempt(lambda: L.edit_distance(to_variable(np.array([[1, 2, 3]], "int64")), to_variable(np.array([[1, 3, 3]], "int64")))[0].numpy())


@section
def wrappers():
    def net():
        x, y = L.data("x", [4]), L.data("y", [1])
        h = L.fc(x, 5, act="relu", name="h")
        h2 = L.fc(h, 5, act="tanh", name="h2")
        return h, h2, L.mean(L.square_error_cost(L.fc(h2, 1, name="o"), y))

    for k in range(2):
        main, startup = fluid.Program(), fluid.Program()
        with fluid.program_guard(main, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.core.Scope()):
            h, h2, loss = net()
            if k == 0:
                opt = O.RecomputeOptimizer(O.Adam(0.05))
                opt._set_checkpoints([h])
            else:
                opt = O.LookaheadOptimizer(O.SGD(0.2), alpha=0.5, k=2)
            opt.minimize(loss)
            exe = fluid.Executor(pl)
            exe.run(startup)
            draw(main)
            for i in range(4):
                show(exe.run(main, feed={"x": F(i, 4, 4), "y": F(i + 9, 4, 1)}, fetch_list=[loss, "h.w_0"]))


@section
def ema_and_average():
    x, y = L.data("x", [4]), L.data("y", [1])
    loss = L.mean(L.square_error_cost(L.fc(x, 1, name="o"), y))
    O.SGD(0.3).minimize(loss)
    ema = O.ExponentialMovingAverage(0.9, thres_steps=L.autoincreased_step_counter("st"))
    ema.update()
    avg = O.ModelAverage(0.5, min_average_window=2, max_average_window=4)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    w = lambda: np.array(fluid.global_scope().find_var("o.w_0").get_tensor())
    for i in range(5):
        exe.run(feed={"x": F(i, 4, 4), "y": F(i + 9, 4, 1)}, fetch_list=[loss])
    show(w())
    with ema.apply(exe, need_restore=True):
        show(w())
    show(w())
    with avg.apply(exe, need_restore=False):
        show(w())
    show(w())
    avg.restore(exe)
    show(w())




@dy
def word2vec_eager_sparse():
    class W(Layer):
        def __init__(self):
            super(W, self).__init__()
            self.e = D.Embedding([12, 4], is_sparse=True, param_attr=fluid.ParamAttr(name="emb", initializer=fluid.initializer.Uniform(-1, 1)))
            self.o = Linear(12, 12, act="softmax")

        def forward(self, ids):
            e = self.e(ids)
            return self.o(L.reshape(e, [-1, 12]))

    m = W()
    det(m)
    opt = O.Adam(0.05, parameter_list=m.parameters(), lazy_mode=True, regularization=None)
    r = np.random.RandomState(3)
    for i in range(3):
        out = m(to_variable(r.randint(0, 12, (5, 3)).astype("int64")))
        l = L.mean(L.cross_entropy(out, to_variable(r.randint(0, 12, (5, 1)).astype("int64"))))
        l.backward()
        opt.minimize(l)
        m.clear_gradients()
        show(l.numpy())
    show(m.e.weight.numpy())


@dy
def eager_seq_ops():
    x = to_variable(F(0, 2, 3, 4))
    x.stop_gradient = False
    outs = [L.transpose(x, [1, 0, 2]), L.reshape(x, [2, -1]), L.concat([x, x], 2), L.reduce_mean(x, [0, 2]), L.topk(x, 2)[0], L.gather(L.reshape(x, [6, 4]), to_variable(np.array([0, 3], "int32"))), L.one_hot(to_variable(np.array([[1], [2]], "int64")), 4),
            L.pad(x, [0, 0, 1, 1, 0, 0]), L.clip(x, 0.2, 0.7), L.matmul(x, x, transpose_y=True), L.softmax(x, axis=1), L.dropout(x, 0.0), L.layer_norm(x, begin_norm_axis=2) if False else x, L.cumsum(x, axis=1), L.unsqueeze(x, [0]), L.stack([x, x]), L.strided_slice(x, [1], [0], [3], [2]), L.argmax(x, -1), L.sequence_mask(to_variable(np.array([1, 3], "int64")), 4), L.fill_constant([2], "float32", 3.0), L.zeros([2], "int32"), L.range(0, 4, 1, "int64"), L.linspace(0, 1, 3, "float32"), L.cast(x > 0.5, "int32"), L.elementwise_max(x, x * 2), L.logical_and(x > 0.1, x < 0.9), L.increment(L.fill_constant([1], "float32", 1.0)), L.reduce_all(x > 0), L.image_resize(L.unsqueeze(x, [1]), [6, 8]), L.grid_sampler(L.unsqueeze(x, [1]), to_variable(F(1, 2, 3, 4, 2)))]
    show([o.numpy() for o in outs])
    L.reduce_sum(L.concat([L.reshape(L.cast(o, "float32"), [-1]) for o in outs[:5]], 0)).backward()
    show(x.gradient())
