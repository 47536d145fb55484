import os
from paddle.fluid.dygraph import Conv2D, Pool2D, Linear, BatchNorm, Embedding, to_variable, guard, Layer, LayerNorm, GRUUnit, Dropout
from paddle.fluid.dygraph import declarative, ProgramTranslator, TracedLayer, Sequential, LayerList, ParameterList, NoamDecay, no_grad
from kit import drawn, ex, fluid, np, section, show
L = fluid.layers
D = fluid.dygraph


def dy(f):
    def g():
        with guard(fluid.CPUPlace()):
            f()
    g.__name__ = f.__name__
    section(g)
    return f


def det(model, s=1.0):
    for n, p in model.named_parameters():
        p.set_value(drawn(n, p.shape, s))


class SimpleImgConvPool(Layer):
    def __init__(self, num_channels, num_filters, filter_size, pool_size, pool_stride, act=None, use_cudnn=False):
        super(SimpleImgConvPool, self).__init__()
        self._conv2d = Conv2D(num_channels=num_channels, num_filters=num_filters, filter_size=filter_size, stride=1,
                              padding=0, dilation=1, groups=1, param_attr=None, bias_attr=None, act=act, use_cudnn=use_cudnn)
        self._pool2d = Pool2D(pool_size=pool_size, pool_type='max', pool_stride=pool_stride, pool_padding=0,
                              global_pooling=False, use_cudnn=use_cudnn)

    def forward(self, inputs):
        x = self._conv2d(inputs)
        return self._pool2d(x)


class MNIST(Layer):
    def __init__(self):
        super(MNIST, self).__init__()
        self._a = SimpleImgConvPool(1, 4, 5, 2, 2, act="relu")
        self._b = SimpleImgConvPool(4, 6, 3, 2, 2, act="relu")
        self.pool_2_shape = 6 * 2 * 2
        self._fc = Linear(self.pool_2_shape, 10, param_attr=fluid.param_attr.ParamAttr(
            initializer=fluid.initializer.NormalInitializer(loc=0.0, scale=0.1)), act="softmax")

    def forward(self, inputs, label=None):
        x = self._a(inputs)
        x = self._b(x)
        x = L.reshape(x, shape=[-1, self.pool_2_shape])
        x = self._fc(x)
        if label is not None:
            return x, L.accuracy(input=x, label=label)
        return x


def images(n, seed=0):
    r = np.random.RandomState(seed)
    return r.rand(n, 1, 16, 16).astype("float32"), r.randint(0, 10, (n, 1)).astype("int64")


@dy
def mnist_train_save_load():
    m = MNIST()
    det(m, 0.5)
    adam = fluid.optimizer.AdamOptimizer(learning_rate=0.01, parameter_list=m.parameters())
    for i in range(3):
        a, b = images(8, i)
        img, label = to_variable(a), to_variable(b)
        label.stop_gradient = True
        cost, acc = m(img, label)
        loss = L.cross_entropy(cost, label)
        avg = L.mean(loss)
        avg.backward()
        adam.minimize(avg)
        m.clear_gradients()
        print("%.5f %.4f" % (avg.numpy()[0], acc.numpy()[0]))
    fluid.save_dygraph(m.state_dict(), "mnist")
    fluid.save_dygraph(adam.state_dict(), "mnist")
    print(sorted(os.listdir(".")))
    d, o = fluid.load_dygraph("mnist")
    print(sorted(d), sorted(o)[:4])
    m2 = MNIST()
    m2.set_dict(d)
    m2.eval()
    show(m2(to_variable(images(2)[0])).numpy())
    adam2 = fluid.optimizer.AdamOptimizer(learning_rate=0.01, parameter_list=m2.parameters())
    try:
        adam2.set_dict(o)
        print("set")
    except Exception as e:
        print(ex(e))
    print(m.full_name(), m._a.full_name(), [k for k in m.state_dict()])
    print([n for n, l in m.named_sublayers()], len(m.sublayers()), m.training, m2.training)


class Decoupled(Layer):
    def __init__(self, dim):
        super(Decoupled, self).__init__("dec")
        self.w = self.create_parameter(shape=[dim, dim], attr=fluid.ParamAttr(name="my_w"), dtype="float32",
                                       is_bias=False, default_initializer=fluid.initializer.Xavier())
        self.b = self.create_parameter(shape=[dim], is_bias=True)
        self.add_parameter("extra", self.create_parameter([1], dtype="float32"))
        self.blocks = []
        for i in range(2):
            self.blocks.append(self.add_sublayer("blk_%d" % i, Linear(dim, dim, act="tanh")))
        self.register_buffer("count", to_variable(np.zeros([1], "float32"))) if hasattr(self, "register_buffer") else None

    def forward(self, x):
        x = L.matmul(x, self.w) + self.b
        for b in self.blocks:
            x = b(x) * self.extra
        return x


@dy
def own_parameters():
    m = Decoupled(3)
    det(m)
    print([n for n, _ in m.named_parameters()], [p.name for p in m.parameters()])
    print([n for n, _ in m.named_parameters(prefix="root", include_sublayers=False)])
    print(sorted(m.state_dict().keys()))
    x = to_variable(np.ones((2, 3), "float32"))
    y = m(x)
    L.reduce_sum(y).backward()
    show(y.numpy(), [p.gradient() for p in m.parameters()])
    m.w.trainable = False
    print(m.w.trainable, type(m.w).__name__, m.w.is_distributed, m.b.optimize_attr)


@dy
def hooks():
    m = Sequential(Linear(3, 2), Linear(2, 1))
    det(m)

    def pre(layer, inputs):
        return (inputs[0] * 2,)

    def post(layer, inputs, out):
        return out + 1

    h1 = m[0].register_forward_pre_hook(pre)
    h2 = m[1].register_forward_post_hook(post)
    x = to_variable(np.ones((2, 3), "float32"))
    show(m(x).numpy())
    h1.remove()
    show(m(x).numpy())
    h2.remove()
    show(m(x).numpy())


@dy
def learning_rates():
    rates = [
        D.NoamDecay(100, 10), D.PiecewiseDecay([2, 4], [0.1, 0.05, 0.01], begin=0), D.NaturalExpDecay(0.1, 2, 0.5, staircase=True),
        D.ExponentialDecay(0.1, 2, 0.5), D.InverseTimeDecay(0.1, 2, 0.5), D.PolynomialDecay(0.1, 5, 0.01, power=2.0, cycle=False),
        D.CosineDecay(0.1, 2, 4), D.LinearLrWarmup(D.PiecewiseDecay([4], [0.1, 0.01], begin=0), 3, 0.0, 0.1),
    ]
    for r in rates:
        m = Linear(2, 1)
        det(m)
        opt = fluid.optimizer.SGD(r, parameter_list=m.parameters())
        out = []
        for i in range(6):
            l = L.reduce_mean(m(to_variable(np.ones((2, 2), "float32"))))
            l.backward()
            opt.minimize(l)
            m.clear_gradients()
            out.append(round(float(opt.current_step_lr()), 6))
        print(type(r).__name__, out, r.step_num)
        show(m.weight.numpy())
    r = D.ReduceLROnPlateau(0.5, mode="min", decay_rate=0.5, patience=1, verbose=False, threshold=1e-3, cooldown=0)
    opt = fluid.optimizer.SGD(r, parameter_list=m.parameters())
    for v in (1.0, 0.9, 0.9, 0.9, 0.9, 0.8):
        r.step(to_variable(np.array([v], "float32")))
        print(round(float(r().numpy()[0]), 5))


@dy
def no_grad_forms():
    x = to_variable(np.ones((2, 2), "float32"))
    x.stop_gradient = False
    with no_grad():
        y = x * 2
    print(y.stop_gradient)

    @no_grad
    def f(v):
        return v * 3
    print(f(x).stop_gradient)

    @D.no_grad()
    def g(v):
        return v * 3
    try:
        print(g(x).stop_gradient)
    except Exception as e:
        print(ex(e))
    z = x * 4
    w = z.detach() * x
    L.reduce_sum(w).backward()
    show(x.gradient())
    print(D.enabled(), fluid.in_dygraph_mode())


@dy
def double_grad():
    x = to_variable(np.array([1.0, 2.0, 3.0], "float32"))
    x.stop_gradient = False
    y = x * x * x
    g = D.grad(outputs=[y], inputs=[x], create_graph=True, retain_graph=True)[0]
    show(g.numpy())
    L.reduce_sum(g * g).backward()
    show(x.gradient())
    a = to_variable(np.array([2.0], "float32"))
    b = to_variable(np.array([3.0], "float32"))
    a.stop_gradient = b.stop_gradient = False
    c = a * b + a
    show([v.numpy() for v in D.grad(c, [a, b], grad_outputs=to_variable(np.array([2.0], "float32")))])
    u = to_variable(np.array([5.0], "float32"))
    u.stop_gradient = False
    print(D.grad(a * a, [a, u], allow_unused=True)[1])
    try:
        D.grad(a * a, [a, u])
    except Exception as e:
        print(ex(e))


@dy
def backward_strategy():
    bs = fluid.dygraph.BackwardStrategy()
    bs.sort_sum_gradient = True
    x = np.ones([2, 2], np.float32)
    inputs2 = []
    for _ in range(10):
        tmp = fluid.dygraph.base.to_variable(x)
        tmp.stop_gradient = False
        inputs2.append(tmp)
    ret2 = L.sums(inputs2)
    loss2 = L.reduce_sum(ret2)
    loss2.backward(bs)
    show(inputs2[0].gradient())
    loss2.clear_gradient()


@dy
def rnn_unit_lm():
    class LM(Layer):
        def __init__(self, v, h):
            super(LM, self).__init__()
            self.emb = Embedding(size=[v, h], dtype="float32", is_sparse=False, param_attr=fluid.ParamAttr(name="e"))
            self.fc = Linear(h, h * 3)
            self.gru = GRUUnit(size=h * 3)
            self.out = Linear(h, v)
            self.h = h

        def forward(self, ids, lab):
            x = self.emb(ids)
            hid = to_variable(np.zeros((ids.shape[0], self.h), "float32"))
            outs = []
            for t in range(ids.shape[1]):
                step = L.squeeze(L.slice(x, axes=[1], starts=[t], ends=[t + 1]), [1])
                hid, r, g = self.gru(self.fc(step), hid)
                outs.append(self.out(hid))
            o = L.stack(outs, axis=1)
            return L.reduce_mean(L.softmax_with_cross_entropy(L.reshape(o, [-1, o.shape[-1]]), L.reshape(lab, [-1, 1])))

    m = LM(7, 4)
    det(m)
    clip = fluid.clip.GradientClipByGlobalNorm(0.2)
    opt = fluid.optimizer.SGD(0.5, parameter_list=m.parameters(), grad_clip=clip,
                              regularization=fluid.regularizer.L2Decay(0.01))
    r = np.random.RandomState(1)
    for i in range(4):
        ids = r.randint(0, 7, (3, 5)).astype("int64")
        l = m(to_variable(ids), to_variable(np.roll(ids, -1, 1)))
        l.backward()
        opt.minimize(l)
        m.clear_gradients()
        show(l.numpy())
    show(m.emb.weight.numpy())


@dy
def all_layers():
    r = np.random.RandomState(3)

    def v(*s):
        return to_variable(r.rand(*s).astype("float32"))

    cases = [
        (D.Conv2D(2, 4, 3, groups=2, padding=1), [v(1, 2, 5, 5)]), (D.Conv3D(2, 3, 2), [v(1, 2, 4, 4, 4)]),
        (D.Conv2DTranspose(2, 3, 3, stride=2), [v(1, 2, 4, 4)]), (D.Conv3DTranspose(2, 3, 2), [v(1, 2, 3, 3, 3)]),
        (D.Pool2D(2, "avg", 2, ceil_mode=True), [v(1, 2, 5, 5)]), (D.BatchNorm(3, momentum=0.8), [v(4, 3, 2, 2)]),
        (D.InstanceNorm(3), [v(2, 3, 4, 4)]), (D.LayerNorm([4]), [v(2, 4)]), (D.GroupNorm(4, 2), [v(2, 4, 3, 3)]),
        (D.SpectralNorm([3, 4], power_iters=2), [v(3, 4)]), (D.PRelu("channel", channel=3), [v(1, 3, 2, 2) - 0.5]),
        (D.BilinearTensorProduct(3, 4, 5), [v(2, 3), v(2, 4)]), (D.RowConv(2) if False else D.Linear(3, 2), [v(2, 3)]),
        (D.Flatten() if hasattr(D, "Flatten") else D.Linear(3, 2), [v(2, 3)]),
        (D.TreeConv(5, 6, 1, 2) if False else D.Linear(3, 2), [v(2, 3)]),
        (D.NCE(10, 4, num_neg_samples=3, seed=1, sampler="uniform") if False else D.Linear(3, 2), [v(2, 3)]),
    ]
    for m, args in cases:
        for n, p in m.named_parameters():
            if not n.startswith("_"):
                p.set_value(drawn(n, p.shape, 1.0))
        o = m(*args)
        print(type(m).__name__, [n for n, _ in m.named_parameters()])
        show(o.numpy())
        if type(m).__name__ not in ("BatchNorm", "SpectralNorm", "InstanceNorm"):
            L.reduce_sum(o * o).backward()
            show([p.gradient() for p in m.parameters() if p.trainable and p.gradient() is not None])
