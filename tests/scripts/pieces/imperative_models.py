from kit import attempt, fluid, np, os, section, show, zlib

D = fluid.dygraph
L = fluid.layers
O = fluid.optimizer


def RS(s=0):
    return np.random.RandomState(s)


def det(model, s=0.6):
    for n, p in model.named_parameters():
        p.set_value(((RS(zlib.crc32(n.encode()) & 0x7FFFFFFF).rand(*p.shape) - 0.5) * s).astype("float32"))


def V(a):
    return D.to_variable(a.copy())


def dy(f):
    def g():
        with D.guard():
            f()

    g.__name__ = f.__name__
    section(g)
    return f


class SimpleLSTMRNN(D.Layer):
    def __init__(self, h, steps, layers=2):
        super(SimpleLSTMRNN, self).__init__()
        self.h, self.n, self.steps = h, layers, steps
        self.ws, self.bs = [], []
        for i in range(layers):
            w = self.create_parameter(
                attr=fluid.ParamAttr(initializer=fluid.initializer.UniformInitializer(-0.1, 0.1)),
                shape=[h * 2, h * 4],
                dtype="float32",
            )
            self.ws.append(self.add_parameter("w_%d" % i, w))
            b = self.create_parameter(
                attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.0)), shape=[h * 4], dtype="float32"
            )
            self.bs.append(self.add_parameter("b_%d" % i, b))

    def forward(self, x, h0, c0):
        hs = [L.reshape(L.slice(h0, axes=[0], starts=[i], ends=[i + 1]), [-1, self.h]) for i in range(self.n)]
        cs = [L.reshape(L.slice(c0, axes=[0], starts=[i], ends=[i + 1]), [-1, self.h]) for i in range(self.n)]
        res = []
        for t in range(self.steps):
            v = L.reshape(L.slice(x, axes=[1], starts=[t], ends=[t + 1]), [-1, self.h])
            for k in range(self.n):
                g = L.elementwise_add(L.matmul(L.concat([v, hs[k]], 1), self.ws[k]), self.bs[k])
                i, j, f, o = L.split(g, num_or_sections=4, dim=-1)
                cs[k] = cs[k] * L.sigmoid(f) + L.sigmoid(i) * L.tanh(j)
                hs[k] = L.tanh(cs[k]) * L.sigmoid(o)
                v = hs[k]
            res.append(L.reshape(v, [1, -1, self.h]))
        r = L.transpose(L.concat(res, 0), [1, 0, 2])
        return r, L.reshape(L.concat(hs, 1), [self.n, -1, self.h]), L.reshape(L.concat(cs, 1), [self.n, -1, self.h])


class PtbModel(D.Layer):
    def __init__(self, h, V_, steps):
        super(PtbModel, self).__init__()
        self.h, self.V_, self.steps = h, V_, steps
        self.rnn = SimpleLSTMRNN(h, steps)
        self.embedding = D.Embedding(size=[V_, h], dtype="float32", is_sparse=False)
        self.w = self.create_parameter(attr=fluid.ParamAttr(), shape=[h, V_], dtype="float32")
        self.b = self.create_parameter(
            attr=fluid.ParamAttr(),
            shape=[V_],
            dtype="float32",
            default_initializer=fluid.initializer.Uniform(-0.1, 0.1),
        )

    def forward(self, x, y, h, c):
        e = L.reshape(self.embedding(x), [-1, self.steps, self.h])
        o, lh, lc = self.rnn(e, h, c)
        p = L.reshape(L.elementwise_add(L.matmul(o, self.w), self.b), [-1, self.V_])
        loss = L.softmax_with_cross_entropy(logits=p, label=y, soft_label=False)
        loss = L.reduce_sum(L.reduce_mean(L.reshape(loss, [-1, self.steps]), dim=[0]))
        return loss, lh, lc


@dy
def ptb():
    m = PtbModel(6, 12, 4)
    det(m)
    r = RS()
    h = np.zeros((2, 3, 6), "float32")
    c = h.copy()
    o = O.SGD(
        D.PiecewiseDecay([2, 4], [1.0, 0.5, 0.25], 0),
        parameter_list=m.parameters(),
        grad_clip=fluid.clip.GradientClipByGlobalNorm(5.0),
    )
    for i in range(5):
        x = r.randint(0, 12, (3, 4, 1)).astype("int64")
        y = r.randint(0, 12, (12, 1)).astype("int64")
        loss, lh, lc = m(V(x), V(y), V(h), V(c))
        h, c = lh.numpy(), lc.numpy()
        loss.backward()
        o.minimize(loss)
        m.clear_gradients()
        print("%.5f %.4f" % (float(loss.numpy()), o.current_step_lr()))
    print([n for n, _ in m.named_parameters()], [p.name for p in m.parameters()])


class MHA(D.Layer):
    def __init__(self, d, h):
        super(MHA, self).__init__()
        self.h, self.d = h, d
        self.q, self.k, self.v, self.o = [D.Linear(d, d, bias_attr=False) for _ in range(4)]

    def forward(self, q, k, v, bias=None, cache=None):
        f = lambda x: L.transpose(L.reshape(x, [0, 0, self.h, self.d // self.h]), [0, 2, 1, 3])
        q, k, v = f(self.q(q)), f(self.k(k)), f(self.v(v))
        p = L.matmul(q, k, transpose_y=True, alpha=(self.d // self.h) ** -0.5)
        if bias is not None:
            p = p + bias
        w = L.softmax(p)
        o = L.reshape(L.transpose(L.matmul(w, v), [0, 2, 1, 3]), [0, 0, self.d])
        return self.o(o)


class Enc(D.Layer):
    def __init__(self):
        super(Enc, self).__init__()
        self.layers_ = D.LayerList(
            [
                D.LayerList([MHA(8, 2), D.Linear(8, 16, act="relu"), D.Linear(16, 8), D.LayerNorm(8), D.LayerNorm(8)])
                for _ in range(2)
            ]
        )
        self.emb = D.Embedding([15, 8], padding_idx=0)
        self.pos = D.Embedding([6, 8], param_attr=fluid.ParamAttr(name="pos_w", trainable=False))
        self.out = D.Linear(8, 15)

    def forward(self, ids, pos, bias):
        x = L.scale(self.emb(ids), 8**0.5) + self.pos(pos)
        x = L.dropout(x, 0.0)
        for a, f1, f2, n1, n2 in self.layers_:
            x = n1(x + a(x, x, x, bias))
            x = n2(x + f2(f1(x)))
        return self.out(x)


@dy
def transformer():
    m = Enc()
    det(m)
    r = RS(1)
    ids = r.randint(0, 15, (2, 6)).astype("int64")
    pos = np.tile(np.arange(6), (2, 1)).astype("int64")
    b = np.zeros((2, 2, 6, 6), "float32")
    b[0, :, :, 4:] = -1e9
    lab = r.randint(0, 15, (12, 1)).astype("int64")
    o = O.Adam(D.NoamDecay(8, 5), beta1=0.9, beta2=0.997, epsilon=1e-9, parameter_list=m.parameters())
    print(len(m.parameters()), len(list(m.named_sublayers())))
    for i in range(4):
        lg = L.reshape(m(V(ids), V(pos), V(b)), [-1, 15])
        oh = L.label_smooth(L.one_hot(V(lab), 15), epsilon=0.1)
        c = L.softmax_with_cross_entropy(lg, oh, soft_label=True)
        loss = L.reduce_sum(c) / 12.0
        loss.backward()
        o.minimize(loss)
        m.clear_gradients()
        print("%.5f" % float(loss.numpy()))
    D.save_dygraph(m.state_dict(), "tr")
    D.save_dygraph(o.state_dict(), "tr")
    a, b2 = D.load_dygraph("tr")
    print(len(a), sorted(b2.keys())[-3:] if b2 else None, sorted(os.listdir(".")))


class BottleneckBlock(D.Layer):
    def __init__(self, ci, co, s, short):
        super(BottleneckBlock, self).__init__()
        self.c1 = D.Conv2D(ci, co, 3, s, 1, bias_attr=False)
        self.b1 = D.BatchNorm(co, act="relu")
        self.c2 = D.Conv2D(co, co, 3, 1, 1, bias_attr=False)
        self.b2 = D.BatchNorm(co)
        self.short = None if short else D.Sequential(D.Conv2D(ci, co, 1, s, bias_attr=False), D.BatchNorm(co))

    def forward(self, x):
        y = self.b2(self.c2(self.b1(self.c1(x))))
        s = x if self.short is None else self.short(x)
        return L.elementwise_add(s, y, act="relu")


class ResNet(D.Layer):
    def __init__(self):
        super(ResNet, self).__init__("resnet")
        self.conv = D.Conv2D(3, 4, 3, 1, 1, act=None, bias_attr=False)
        self.bn = D.BatchNorm(4, act="relu")
        self.pool = D.Pool2D(2, "max", 2)
        self.blocks = []
        for i, (a, b, s) in enumerate([(4, 4, 1), (4, 6, 2)]):
            self.blocks.append(self.add_sublayer("bb_%d" % i, BottleneckBlock(a, b, s, s == 1)))
        self.gp = D.Pool2D(pool_size=2, pool_type="avg", global_pooling=True)
        self.out = D.Linear(
            6, 5, act="softmax", param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-0.1, 0.1))
        )

    def forward(self, x):
        y = self.pool(self.bn(self.conv(x)))
        for b in self.blocks:
            y = b(y)
        return self.out(L.reshape(self.gp(y), [-1, 6]))


@dy
def resnet():
    m = ResNet()
    det(m)
    r = RS(2)
    X = r.rand(4, 3, 8, 8).astype("float32")
    Y = r.randint(0, 5, (4, 1)).astype("int64")
    o = O.Momentum(
        D.PiecewiseDecay([2], [0.1, 0.01], 0),
        0.9,
        regularization=fluid.regularizer.L2Decay(1e-4),
        parameter_list=m.parameters(),
    )
    for i in range(4):
        p = m(V(X))
        loss = L.mean(L.cross_entropy(p, V(Y)))
        a1 = L.accuracy(p, V(Y), k=1)
        a5 = L.accuracy(p, V(Y), k=3)
        loss.backward()
        o.minimize(loss)
        m.clear_gradients()
        print("%.5f %.3f %.3f" % (loss.numpy(), a1.numpy(), a5.numpy()))
    m.eval()
    p = m(V(X))
    show(p.numpy())
    print([k for k in m.state_dict()])
    print(m.bn._mean.name, m.bn.weight.name)
    D.save_dygraph(m.state_dict(), "rn")
    st, _ = D.load_dygraph("rn")
    print(_ is None, len(st))
    m2 = ResNet()
    m2.set_dict(st, use_structured_name=True)
    m2.eval()
    print(np.allclose(m2(V(X)).numpy(), p.numpy()))


@dy
def seq2seq_attention():
    class S2S(D.Layer):
        def __init__(self):
            super(S2S, self).__init__()
            self.se, self.te = D.Embedding([12, 5]), D.Embedding([12, 5])
            self.enc = D.GRUUnit(18)
            self.ei = D.Linear(5, 18)
            self.di = D.Linear(11, 18)
            self.dec = D.GRUUnit(18)
            self.att = D.Linear(6, 6, bias_attr=False)
            self.out = D.Linear(12, 12)

        def forward(self, s, t):
            h = L.zeros([s.shape[0], 6], "float32")
            hs = []
            e = self.se(s)
            for i in range(s.shape[1]):
                h, _, _ = self.enc(self.ei(e[:, i]), h)
                hs.append(h)
            H = L.stack(hs, 1)
            feed = L.zeros_like(h)
            outs = []
            te = self.te(t)
            for i in range(t.shape[1]):
                h, _, _ = self.dec(self.di(L.concat([te[:, i], feed], 1)), h)
                a = L.softmax(L.squeeze(L.matmul(L.unsqueeze(self.att(h), 1), H, transpose_y=True), [1]))
                c = L.squeeze(L.matmul(L.unsqueeze(a, 1), H), [1])
                feed = c
                outs.append(self.out(L.concat([h, c], 1)))
            return L.stack(outs, 1)

    m = S2S()
    det(m)
    r = RS(3)
    s = r.randint(0, 12, (2, 4)).astype("int64")
    t = r.randint(0, 12, (2, 3)).astype("int64")
    y = r.randint(0, 12, (2, 3, 1)).astype("int64")
    mask = np.array([[1, 1, 0], [1, 1, 1]], "float32")
    o = O.Adam(0.01, parameter_list=m.parameters(), grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0))
    for i in range(4):
        lg = m(V(s), V(t))
        c = L.squeeze(L.softmax_with_cross_entropy(lg, V(y)), [2])
        loss = L.reduce_sum(L.reduce_mean(c * V(mask), dim=[0]))
        loss.backward()
        o.minimize(loss)
        m.clear_gradients()
        print("%.5f" % float(loss.numpy()))


@dy
def reinforce():
    class Policy(D.Layer):
        def __init__(self):
            super(Policy, self).__init__()
            self.a1 = D.Linear(4, 8)
            self.a2 = D.Linear(8, 2)
            self.dr = 0.0

        def forward(self, x):
            return L.softmax(self.a2(L.relu(L.dropout(self.a1(L.reshape(x, shape=[1, 4])), self.dr))))

    m = Policy()
    det(m)
    o = O.AdamaxOptimizer(learning_rate=0.01, parameter_list=m.parameters())
    r = RS(4)
    for ep in range(3):
        lps = []
        rew = r.rand(4).astype("float32")
        R = 0
        ret = []
        for k in range(4):
            p = m(V(r.rand(4).astype("float32")))
            mask = np.array([[1, 0] if k % 2 else [0, 1]], "float32")
            lps.append(L.log(L.reduce_sum(p * V(mask))))
        for q in rew[::-1]:
            R = q + 0.99 * R
            ret.insert(0, R)
        ret = np.array(ret)
        ret = (ret - ret.mean()) / (ret.std() + 1e-8)
        ls = [-1 * lp * float(v) for lp, v in zip(lps, ret)]
        loss = L.sum(ls) if hasattr(L, "sum") else L.sums(ls)
        loss.backward()
        o.minimize(loss)
        m.clear_gradients()
        print("%.5f" % float(loss.numpy()))


@dy
def gan_dygraph():
    G = D.Sequential(D.Linear(3, 6, act="relu"), D.Linear(6, 4, act="tanh"))
    Dn = D.Sequential(D.Linear(4, 6, act="leaky_relu"), D.Linear(6, 1))
    det(G)
    det(Dn)
    og = O.Adam(0.01, beta1=0.5, parameter_list=G.parameters())
    od = O.Adam(0.01, beta1=0.5, parameter_list=Dn.parameters())
    r = RS(5)
    for i in range(3):
        z = V(r.rand(4, 3).astype("float32"))
        x = V(r.rand(4, 4).astype("float32"))
        f = G(z)
        dl = L.mean(L.sigmoid_cross_entropy_with_logits(Dn(x), L.ones([4, 1], "float32"))) + L.mean(
            L.sigmoid_cross_entropy_with_logits(Dn(f.detach()), L.zeros([4, 1], "float32"))
        )
        dl.backward()
        od.minimize(dl)
        Dn.clear_gradients()
        gl = L.mean(L.sigmoid_cross_entropy_with_logits(Dn(G(z)), L.ones([4, 1], "float32")))
        gl.backward()
        og.minimize(gl)
        G.clear_gradients()
        Dn.clear_gradients()
        print("%.5f %.5f" % (float(dl.numpy()), float(gl.numpy())))


attempt(lambda: D.to_variable(np.ones(3)))
attempt(lambda: D.Linear(3, 2))
