import os
from paddle.fluid.dygraph import BatchNorm, Conv2D, Embedding, LayerNorm, Linear, Layer, LayerList, ParameterList, Sequential, TracedLayer, declarative, guard, no_grad, to_variable
from kit import attempt, drawn, fluid, np, section, show
L = fluid.layers
D = fluid.dygraph
O = fluid.optimizer


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


def I(seed, hi, *s):
    return np.random.RandomState(seed).randint(0, hi, s).astype("int64")


def mlp(act="tanh"):
    m = Sequential(Linear(4, 6, act=act), Linear(6, 2))
    det(m)
    return m


def step(m, opt, i, **more):
    loss = L.mean(L.square(m(to_variable(F(i, 5, 4))) - 0.3))
    loss.backward()
    opt.minimize(loss, **more)
    m.clear_gradients()
    return float(loss.numpy())


@dy
def resumed_training():
    for make in (lambda p: O.Adam(D.PolynomialDecay(0.1, 8, 0.01), parameter_list=p), lambda p: O.Momentum(0.1, 0.9, parameter_list=p), lambda p: O.Adamax(D.CosineDecay(0.1, 2, 4), parameter_list=p), lambda p: O.Lamb(0.05, parameter_list=p)):
        m = mlp()
        opt = make(m.parameters())
        for i in range(4):
            step(m, opt, i)
        fluid.save_dygraph(m.state_dict(), "ck")
        fluid.save_dygraph(opt.state_dict(), "ck")
        print(sorted(f for f in os.listdir(".") if f.startswith("ck")))
        on = ["%.5f" % step(m, opt, i) for i in range(4, 8)]
        params, states = fluid.load_dygraph("ck")
        print(sorted(params), len(states))
        again = mlp("tanh")
        again.set_dict(params)
        opt2 = make(again.parameters())
        attempt(lambda: opt2.set_dict(states))
        print(on, "%.4f" % opt.current_step_lr())
        print("%.4f" % opt2.current_step_lr())


@dy
def state_dicts():
    m = Sequential(("body", Sequential(Linear(4, 3), BatchNorm(3))), ("head", Linear(3, 2)))
    det(m)
    sd = m.state_dict()
    print(sorted(sd), [tuple(v.shape) for _, v in sorted(sd.items())])
    part = {k: v for k, v in sd.items() if k.startswith("body")}
    fluid.save_dygraph(part, "part")
    other = Sequential(("body", Sequential(Linear(4, 3), BatchNorm(3))), ("head", Linear(3, 5)))
    det(other, 0.5)
    loaded, opt = fluid.load_dygraph("part")
    print(opt, sorted(loaded))
    full = {k: v.numpy() for k, v in other.state_dict().items()}
    full.update(loaded)
    other.set_dict(full)
    show(other(to_variable(F(0, 3, 4))).numpy())
    attempt(lambda: other.set_dict(loaded))
    attempt(lambda: other.set_dict({k: v.numpy() for k, v in sd.items()}))
    other.set_dict(dict(full, **{"head.bias": F(2, 5)}))
    show(other.head.bias.numpy())
    by_name = {p.name: p.numpy() for p in m.body[0].parameters()}
    attempt(lambda: m.body[0].set_dict(by_name, use_structured_name=False))
    print(m.body[0].full_name().split("_")[0], len(list(m.named_parameters())), len(m.sublayers()))


@dy
def schedules():
    for rate in (D.NoamDecay(8, 3), D.PiecewiseDecay([2, 4], [0.3, 0.2, 0.1], 0), D.ExponentialDecay(0.2, 2, 0.5, staircase=True), D.NaturalExpDecay(0.2, 2, 0.5), D.InverseTimeDecay(0.2, 2, 0.5),
                 D.PolynomialDecay(0.2, 4, 0.01, cycle=True), D.CosineDecay(0.2, 2, 3), D.LinearLrWarmup(D.PiecewiseDecay([4], [0.2, 0.1], 0), 3, 0.0, 0.2), D.LinearLrWarmup(0.2, 3, 0.0, 0.2)):
        m = mlp()
        opt = O.SGD(rate, parameter_list=m.parameters())
        print(type(rate).__name__, ["%.4f %.5f" % (step(m, opt, i), opt.current_step_lr()) for i in range(6)])
    for rate in (D.StepDecay(0.2, 2), D.MultiStepDecay(0.2, [2, 4]), D.LambdaDecay(0.2, lambda e: 0.9 ** e)):
        m = mlp()
        opt = O.Adam(rate, parameter_list=m.parameters())
        found = []
        for i in range(6):
            found.append("%.4f %.5f" % (step(m, opt, i), opt.current_step_lr()))
            rate.epoch()
        print(type(rate).__name__, found)
    m = mlp()
    rate = D.ReduceLROnPlateau(0.2, decay_rate=0.5, patience=1, cooldown=1)
    opt = O.SGD(rate, parameter_list=m.parameters())
    for i, v in enumerate([1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.5]):
        step(m, opt, i)
        rate.step(to_variable(np.array([v], "float32")))
        print("%.4f" % opt.current_step_lr())


@dy
def clipped():
    for clip in (fluid.clip.GradientClipByValue(0.05, -0.02), fluid.clip.GradientClipByNorm(0.1), fluid.clip.GradientClipByGlobalNorm(0.1), fluid.clip.GradientClipByGlobalNorm(0.1, need_clip=lambda p: "b_0" not in p.name)):
        m = mlp()
        opt = O.Momentum(0.5, 0.9, parameter_list=m.parameters(), grad_clip=clip, regularization=fluid.regularizer.L2Decay(0.01))
        print(["%.5f" % step(m, opt, i) for i in range(5)])
    m = mlp()
    opt = O.SGD(0.5, parameter_list=m.parameters())
    print(["%.5f" % step(m, opt, i) for i in range(3)])


@dy
def loaders():
    def samples():
        for i in range(7):
            yield F(i, 4), I(i, 2, 1)

    def batches():
        for i in range(3):
            yield F(i, 2, 4), I(i, 2, 2, 1)
    for kind in ("sample", "list", "batch"):
        loader = fluid.io.DataLoader.from_generator(capacity=4, return_list=True, iterable=True)
        if kind == "sample":
            loader.set_sample_generator(samples, batch_size=3, drop_last=False, places=fluid.CPUPlace())
        elif kind == "list":
            loader.set_sample_list_generator(fluid.io.batch(samples, 3), places=fluid.CPUPlace())
        else:
            loader.set_batch_generator(batches, places=fluid.CPUPlace())
        for epoch in range(2):
            print(kind, [(tuple(x.shape), tuple(y.shape), str(y.dtype), x.stop_gradient) for x, y in loader()])
    m = Sequential(Linear(4, 2, act="softmax"))
    det(m)
    opt = O.Adam(0.05, parameter_list=m.parameters())
    for epoch in range(2):
        for x, y in loader():
            loss = L.mean(L.cross_entropy(m(x), y))
            acc = L.accuracy(m(x), y)
            loss.backward()
            opt.minimize(loss)
            m.clear_gradients()
            print("loss %.5f acc %.2f" % (float(loss.numpy()), float(acc.numpy())))


class Net(Layer):
    def __init__(self):
        super(Net, self).__init__()
        self.conv = Conv2D(1, 3, 3, act="relu")
        self.bn = BatchNorm(3)
        self.out = Linear(3, 4)

    def forward(self, x):
        return self.out(L.reduce_mean(self.bn(self.conv(x)), dim=[2, 3]))


@dy
def traced_model():
    m = Net()
    det(m)
    opt = O.SGD(0.1, parameter_list=m.parameters())
    for i in range(3):
        loss = L.mean(L.square(m(to_variable(F(i, 2, 1, 6, 6)))))
        loss.backward()
        opt.minimize(loss)
        m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))
    m.eval()
    x = to_variable(F(9, 2, 1, 6, 6))
    out, traced = TracedLayer.trace(m, [x])
    show(out.numpy(), traced([x])[0])
    print([op.type for op in traced.program.global_block().ops])
    traced.save_inference_model("inf", feed=[0], fetch=[0])


@section
def traced_model_again():
    exe = fluid.Executor(fluid.CPUPlace())
    program, feeds, fetches = fluid.io.load_inference_model("inf", exe)
    print(len(feeds), len(fetches), [op.type for op in program.global_block().ops])
    show(exe.run(program, feed={feeds[0]: F(9, 2, 1, 6, 6)}, fetch_list=fetches)[0])


class Branchy(Layer):
    def __init__(self):
        super(Branchy, self).__init__()
        self.a, self.b = Linear(4, 4), Linear(4, 4)

    @declarative
    def forward(self, x, n=3):
        y = self.a(x)
        if L.mean(y).numpy()[0] > 0.0:
            y = y - 1.0
        else:
            y = y + 1.0
        for i in range(n):
            y = L.tanh(self.b(y)) + y
        return y * 0.5


@dy
def converted_training():
    m = Branchy()
    det(m)
    opt = O.Adam(0.02, parameter_list=m.parameters())
    for i in range(5):
        loss = L.mean(L.square(m(to_variable(F(i, 3, 4) - 0.5))))
        loss.backward()
        opt.minimize(loss)
        m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))
    D.ProgramTranslator().enable(False)
    show(m(to_variable(F(7, 3, 4) - 0.5)).numpy())
    D.ProgramTranslator().enable(True)
    show(m(to_variable(F(7, 3, 4) - 0.5)).numpy(), m.a.weight.numpy())


class Nested(Layer):
    def __init__(self):
        super(Nested, self).__init__()
        self.rows = LayerList([LayerList([Linear(3, 3) for _ in range(2)]) for _ in range(2)])
        self.scales = ParameterList([self.create_parameter([3], attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(1.0 + i))) for i in range(2)])
        self.tail = Sequential(("norm", LayerNorm([3])), ("fc", Linear(3, 1)))
        self.seen = self.create_variable("seen", persistable=True, dtype="float32")

    def forward(self, x):
        for row, scale in zip(self.rows, self.scales):
            for f in row:
                x = L.tanh(f(x))
            x = x * scale
        return self.tail(x)


@dy
def nested_containers():
    m = Nested()
    print([n for n, _ in m.named_parameters()])
    print([n for n, _ in m.named_sublayers()], len(m.sublayers()))
    det(m)
    opt = O.SGD(0.1, parameter_list=m.parameters())
    for i in range(4):
        loss = L.mean(L.square(m(to_variable(F(i, 4, 3)))))
        loss.backward()
        opt.minimize(loss)
        m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))
    m.rows.append(LayerList([Linear(3, 3)]))
    m.rows[0].insert(0, Linear(3, 3))
    m.scales.append(m.create_parameter([3]))
    print(len(m.rows), len(m.rows[0]), len(m.scales), len(m.parameters()))
    del m.seen
    attempt(lambda: m.seen)
    m.tail = Linear(3, 2)
    print(sorted(n for n in m.state_dict() if n.startswith("tail")))


@dy
def hooks_of_sublayers():
    m = mlp()
    log = []
    pre = m[0].register_forward_pre_hook(lambda layer, x: log.append(("pre", tuple(x[0].shape))))
    post = m[1].register_forward_post_hook(lambda layer, x, y: y * 2.0)
    twice = m[1].register_forward_post_hook(lambda layer, x, y: log.append(("post", tuple(y.shape))))
    a = m(to_variable(F(0, 2, 4))).numpy()
    post.remove()
    b = m(to_variable(F(0, 2, 4))).numpy()
    pre.remove()
    twice.remove()
    m(to_variable(F(0, 2, 4)))
    print(log, bool(np.allclose(a, 2 * b)))
    replaced = m.register_forward_pre_hook(lambda layer, x: (x[0] * 0.0,))
    show(m(to_variable(F(0, 2, 4))).numpy())
    replaced.remove()


@dy
def without_gradients():
    m = mlp()

    @no_grad
    def target(x):
        return m(x)

    def total(x):
        with no_grad():
            return L.reduce_sum(m(x))
    x = to_variable(F(0, 3, 4))
    y = target(x)
    print(y.stop_gradient, total(x).stop_gradient, m(x).stop_gradient)
    w = m(x)
    loss = L.mean(L.square(w - y.detach()) + w * w.detach())
    loss.backward()
    show(loss.numpy(), m[0].weight.gradient())
    m.clear_gradients()
    x.stop_gradient = False
    z = L.reduce_sum(m(x) * m(x))
    z.backward()
    show(x.gradient())
    x.clear_gradient()
    show(x.gradient())


@dy
def target_network():
    q, slow = mlp(), mlp()
    slow.set_dict(q.state_dict())
    opt = O.Adam(0.02, parameter_list=q.parameters())
    for i in range(5):
        s, a, r, s2 = F(i, 6, 4), I(i, 2, 6), F(60 + i, 6), F(90 + i, 6, 4)
        with no_grad():
            best = L.reduce_max(slow(to_variable(s2)), dim=1)
        goal = to_variable(r) + 0.9 * best
        goal.stop_gradient = True
        chosen = L.reduce_sum(q(to_variable(s)) * fluid.one_hot(to_variable(a), 2), dim=1)
        loss = L.mean(L.huber_loss(L.unsqueeze(chosen, [1]), L.unsqueeze(goal, [1]), 1.0))
        loss.backward()
        opt.minimize(loss)
        q.clear_gradients()
        for p, t in zip(q.parameters(), slow.parameters()):
            t.set_value(0.1 * p.numpy() + 0.9 * t.numpy())
        print("loss %.5f" % float(loss.numpy()))
    show(slow[1].weight.numpy())


@dy
def variational():
    enc, dec = Linear(6, 4), Linear(2, 6)
    m = LayerList([enc, dec])
    det(m)
    opt = O.Adam(0.02, parameter_list=m.parameters())
    for i in range(5):
        x = to_variable(F(i, 4, 6))
        mu, logv = L.split(enc(x), 2, dim=1)
        z = mu + L.exp(0.5 * logv) * to_variable(F(30 + i, 4, 2) - 0.5)
        rec = L.reduce_sum(L.sigmoid_cross_entropy_with_logits(dec(z), x), dim=1)
        kl = -0.5 * L.reduce_sum(1.0 + logv - mu * mu - L.exp(logv), dim=1)
        loss = L.mean(rec + kl)
        loss.backward()
        opt.minimize(loss)
        m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))


class Block(Layer):
    def __init__(self, d=8, heads=2):
        super(Block, self).__init__()
        self.q, self.k, self.v, self.o = [Linear(d, d) for _ in range(4)]
        self.n1, self.n2 = LayerNorm(d), LayerNorm(d)
        self.f1, self.f2 = Linear(d, 16, act="relu"), Linear(16, d)
        self.heads, self.d = heads, d

    def split(self, x):
        return L.transpose(L.reshape(x, [0, 0, self.heads, self.d // self.heads]), [0, 2, 1, 3])

    def forward(self, x, bias):
        w = L.softmax(L.matmul(self.split(self.q(x)), self.split(self.k(x)), transpose_y=True, alpha=(self.d // self.heads) ** -0.5) + bias)
        w = L.dropout(w, 0.0, dropout_implementation="upscale_in_train")
        c = L.reshape(L.transpose(L.matmul(w, self.split(self.v(x))), [0, 2, 1, 3]), [0, 0, self.d])
        x = self.n1(x + self.o(c))
        return self.n2(x + self.f2(self.f1(x)))


@dy
def encoder():
    emb, pos, blocks, out = Embedding([9, 8], padding_idx=0), Embedding([6, 8]), LayerList([Block() for _ in range(2)]), Linear(8, 9)
    m = LayerList([emb, pos, blocks, out])
    det(m)
    opt = O.Adam(D.NoamDecay(8, 3), beta1=0.9, beta2=0.98, epsilon=1e-9, parameter_list=m.parameters())
    for i in range(5):
        ids = I(i, 9, 3, 6)
        ids[:, 4:] = 0
        bias = (ids == 0).astype("float32")[:, None, None, :] * -1e9
        x = emb(to_variable(ids)) * (8 ** 0.5) + pos(to_variable(np.tile(np.arange(6), (3, 1)).astype("int64")))
        for b in blocks:
            x = b(x, to_variable(bias))
        soft = L.label_smooth(fluid.one_hot(to_variable(I(50 + i, 9, 3, 6)), 9), epsilon=0.1)
        ce = L.softmax_with_cross_entropy(L.reshape(out(x), [-1, 9]), L.reshape(soft, [-1, 9]), soft_label=True)
        w = to_variable((ids != 0).astype("float32").reshape(-1, 1))
        loss = L.reduce_sum(ce * w) / L.reduce_sum(w)
        loss.backward()
        opt.minimize(loss)
        m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))


@dy
def modes():
    m = Sequential(Linear(4, 3), BatchNorm(3, momentum=0.5), D.Dropout(0.4), Linear(3, 1))
    det(m)
    m.eval()
    print(m.training, [s.training for s in m.sublayers()])
    a, b = m(to_variable(F(0, 4, 4))).numpy(), m(to_variable(F(0, 4, 4))).numpy()
    print(bool((a == b).all()))
    show(a)
    m.train()
    for i in range(3):
        m(to_variable(F(i, 4, 4)))
    print(m.training)
    m.eval()
    show(m(to_variable(F(0, 4, 4))).numpy(), m[1]._mean.numpy(), m[1]._variance.numpy())


@dy
def sequence_losses():
    f = Linear(4, 5)
    det(f)
    opt = O.SGD(0.1, parameter_list=f.parameters())
    for i in range(4):
        x = to_variable(F(i, 6, 2, 4))
        loss = L.mean(L.warpctc(f(x), to_variable(np.array([[1, 2], [3, 0]], "int32")), blank=4, norm_by_times=False, input_length=to_variable(np.array([6, 5], "int64")), label_length=to_variable(np.array([2, 1], "int64"))))
        loss.backward()
        opt.minimize(loss)
        f.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))
    attempt(lambda: L.ctc_greedy_decoder(L.transpose(L.softmax(f(x)), [1, 0, 2]), 4, input_length=to_variable(np.array([[6], [5]], "int64")))[0].numpy())
