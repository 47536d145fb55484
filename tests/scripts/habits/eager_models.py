from paddle.fluid.dygraph import Conv2D, Conv2DTranspose, Pool2D, Linear, BatchNorm, Embedding, to_variable, guard, Layer, LayerNorm, GRUUnit
from paddle.fluid.dygraph import declarative, TracedLayer, Sequential, LayerList, ParameterList, no_grad
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


def steps(model, opt, loss_of, n=5):
    for i in range(n):
        loss = loss_of(i)
        loss.backward()
        opt.minimize(loss)
        model.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))


class ConvBN(Layer):
    def __init__(self, ci, co, k=3, stride=1, act="leaky_relu"):
        super(ConvBN, self).__init__()
        self.conv = Conv2D(ci, co, k, stride=stride, padding=(k - 1) // 2, bias_attr=False)
        self.bn = BatchNorm(co, act=None, param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L2Decay(0.)))
        self.act = act

    def forward(self, x):
        x = self.bn(self.conv(x))
        return L.leaky_relu(x, alpha=0.1) if self.act == "leaky_relu" else x


class YoloHead(Layer):
    def __init__(self, classes=3):
        super(YoloHead, self).__init__()
        self.blocks = []
        for i, (ci, co) in enumerate([(3, 6), (6, 8), (8, 12)]):
            self.blocks.append(self.add_sublayer("stage_%d" % i, ConvBN(ci, co, stride=2)))
        self.heads = []
        for i, ci in enumerate([12, 8 + 4]):
            self.heads.append(self.add_sublayer("head_%d" % i, Conv2D(ci, 3 * (5 + classes), 1)))
        self.route = ConvBN(12, 4, 1)
        self.classes = classes

    def forward(self, x):
        feats = []
        for b in self.blocks:
            x = b(x)
            feats.append(x)
        out0 = self.heads[0](feats[-1])
        up = L.resize_nearest(self.route(feats[-1]), scale=2.0, align_corners=False)
        return [out0, self.heads[1](L.concat([up, feats[-2]], axis=1))]


@dy
def yolov3():
    m = YoloHead()
    det(m)
    anchors = [4, 6, 8, 10, 12, 16, 18, 20, 24, 20, 28, 30]
    masks = [[3, 4, 5], [0, 1, 2]]
    opt = O.Momentum(0.005, 0.9, regularization=fluid.regularizer.L2Decay(5e-4), parameter_list=m.parameters())
    x, box, lab, score = F(0, 2, 3, 32, 32), F(1, 2, 4, 4) * 0.5 + 0.1, I(2, 3, 2, 4).astype("int32"), np.ones((2, 4), "float32")

    def loss_of(i):
        losses, down = [], 8
        for out, mask in zip(m(to_variable(x)), masks):
            losses.append(L.mean(L.yolov3_loss(out, to_variable(box), to_variable(lab), anchors, mask, 3, 0.7, down, gt_score=to_variable(score), use_label_smooth=False)))
            down //= 2
        return sum(losses)
    steps(m, opt, loss_of)
    m.eval()
    boxes, scores, down = [], [], 8
    for out, mask in zip(m(to_variable(x)), masks):
        an = []
        for k in mask:
            an += anchors[2 * k:2 * k + 2]
        b, s = L.yolo_box(out, to_variable(np.array([[32, 32]] * 2, "int32")), an, 3, 0.01, down, name="yolo_box")
        boxes.append(b)
        scores.append(L.transpose(s, perm=[0, 2, 1]))
        down //= 2
    show(L.concat(boxes, axis=1).numpy(), L.concat(scores, axis=2).numpy())


@dy
def retina_head():
    cls, reg = Conv2D(4, 3 * 2, 3, padding=1), Conv2D(4, 3 * 4, 3, padding=1)
    both = LayerList([cls, reg])
    det(both)
    feat = to_variable(F(0, 1, 4, 4, 4))
    anchors, var = L.anchor_generator(feat, anchor_sizes=[8., 16., 24.], aspect_ratios=[1.0], variance=[0.1, 0.1, 0.2, 0.2], stride=[8., 8.])
    anchors = L.reshape(anchors, [-1, 4])
    gt = np.zeros((48, 1), "int32")
    gt[[3, 17, 40]] = [[1], [2], [1]]
    tgt = F(3, 48, 4) * (gt > 0)
    opt = O.Adam(0.01, parameter_list=both.parameters())

    def loss_of(i):
        c = L.reshape(L.transpose(cls(feat), [0, 2, 3, 1]), [-1, 2])
        r = L.reshape(L.transpose(reg(feat), [0, 2, 3, 1]), [-1, 4])
        fg = to_variable(np.array([3], "int32"))
        a = L.reduce_sum(L.sigmoid_focal_loss(c, to_variable(gt), fg, gamma=2.0, alpha=0.25))
        w = to_variable((gt > 0).astype("float32").repeat(4, 1))
        b = L.reduce_sum(L.smooth_l1(r, to_variable(tgt.astype("float32")), inside_weight=w, outside_weight=w, sigma=3.0))
        return a + b / 3.0
    steps(both, opt, loss_of)
    deltas = L.reshape(L.transpose(reg(feat), [0, 2, 3, 1]), [-1, 1, 4])
    box = L.box_coder(anchors, [0.1, 0.1, 0.2, 0.2], deltas, code_type="decode_center_size", box_normalized=False, axis=1).numpy()
    iou = L.iou_similarity(anchors, to_variable(np.array([[0, 0, 10, 10], [8, 8, 24, 24]], "float32")))
    show(anchors.numpy(), var.numpy(), iou.numpy(), box)


class Attention(Layer):
    def __init__(self, d):
        super(Attention, self).__init__()
        self.query, self.key = Linear(d, d, bias_attr=False), Linear(d, d, bias_attr=False)
        self.score = Linear(d, 1, bias_attr=False)

    def forward(self, state, memory, mask):
        q = L.unsqueeze(self.query(state), [1])
        e = L.squeeze(self.score(L.tanh(self.key(memory) + L.expand(q, [1, memory.shape[1], 1]))), [2])
        a = L.softmax(e + (mask - 1.0) * 1e9)
        return L.squeeze(L.matmul(L.unsqueeze(a, [1]), memory), [1]), a


class Seq2Seq(Layer):
    def __init__(self, words=11, d=6):
        super(Seq2Seq, self).__init__()
        self.src, self.trg = Embedding([words, d]), Embedding([words, d])
        self.enc_in, self.enc = Linear(d, 3 * d, bias_attr=False), GRUUnit(3 * d)
        self.dec_in, self.dec = Linear(2 * d, 3 * d, bias_attr=False), GRUUnit(3 * d)
        self.att, self.out, self.d = Attention(d), Linear(d, words), d

    def encode(self, src, mask):
        e = self.src(src)
        h = L.fill_constant_batch_size_like(e, [-1, self.d], "float32", 0.0)
        hs = []
        for t in range(e.shape[1]):
            new, _, _ = self.enc(self.enc_in(e[:, t]), h)
            m = L.slice(mask, [1], [t], [t + 1])
            h = new * m + h * (1.0 - m)
            hs.append(h)
        return h, L.stack(hs, axis=1)

    def step(self, word, h, memory, mask):
        c, a = self.att(h, memory, mask)
        h, _, _ = self.dec(self.dec_in(L.concat([self.trg(L.reshape(word, [-1])), c], 1)), h)
        return self.out(h), h, a

    def forward(self, src, mask, trg):
        h, memory = self.encode(src, mask)
        logits = []
        for t in range(trg.shape[1]):
            o, h, _ = self.step(L.slice(trg, [1], [t], [t + 1]), h, memory, mask)
            logits.append(o)
        return L.stack(logits, 1)


def pairs():
    src = I(0, 11, 3, 5)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], "float32")
    return src, mask, I(1, 11, 3, 4), I(2, 11, 3, 4)


@dy
def seq2seq_attention():
    m = Seq2Seq()
    det(m, 0.8)
    src, mask, trg, lab = pairs()
    opt = O.Adam(D.NoamDecay(32, 4), parameter_list=m.parameters(), grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0))

    def loss_of(i):
        logits = m(to_variable(src), to_variable(mask), to_variable(trg))
        ce = L.softmax_with_cross_entropy(logits, to_variable(lab[:, :, None]))
        w = to_variable(np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], "float32"))
        return L.reduce_sum(L.reduce_mean(L.squeeze(ce, [2]) * w, dim=0))
    steps(m, opt, loss_of)
    # greedy, then a beam by hand
    m.eval()
    with no_grad():
        h, memory = m.encode(to_variable(src), to_variable(mask))
        word, found = to_variable(np.zeros((3, 1), "int64")), []
        for _ in range(4):
            o, h, a = m.step(word, h, memory, to_variable(mask))
            word = L.reshape(L.argmax(o, axis=1), [-1, 1])
            found.append(word.numpy())
        show(np.concatenate(found, 1), a.numpy())


@dy
def beam_by_hand():
    m = Seq2Seq()
    det(m, 0.8)
    src, mask, _, _ = pairs()
    K, V, B = 2, 11, 3
    h, memory = m.encode(to_variable(src), to_variable(mask))

    def tile(x):
        return L.reshape(L.expand(L.unsqueeze(x, [1]), [1, K] + [1] * (len(x.shape) - 1)), [-1] + list(x.shape[1:]))
    h, memory, mask = tile(h), tile(memory), tile(to_variable(mask))
    logp = to_variable(np.array([[0.0, -1e9]] * B, "float32"))
    word, parents, words = to_variable(np.zeros((B * K, 1), "int64")), [], []
    base = np.arange(B)[:, None] * K
    for _ in range(5):
        o, h, _ = m.step(word, h, memory, mask)
        total = L.reshape(L.log(L.softmax(o)), [B, K, V]) + L.unsqueeze(logp, [2])
        logp, at = L.topk(L.reshape(total, [B, K * V]), K)
        at = at.numpy()
        parents.append(at // V)
        words.append(at % V)
        h = L.gather(h, to_variable((at // V + base).reshape(-1)))
        word = to_variable((at % V).reshape(-1, 1))
    tree = L.gather_tree(to_variable(np.stack(words)), to_variable(np.stack(parents)))
    show(tree.numpy().transpose(1, 2, 0), logp.numpy())


@dy
def beam_search_decoder():
    emb, cell, out = Embedding([9, 6]), L.GRUCell(hidden_size=5, name="cell"), Linear(5, 9)
    attempt(lambda: det(LayerList([emb, out])))

    def run():
        dec = L.BeamSearchDecoder(cell, start_token=0, end_token=1, beam_size=2, embedding_fn=lambda x: emb(x), output_fn=lambda x: out(x))
        return L.dynamic_decode(dec, inits=to_variable(F(0, 2, 5)), max_step_num=4)[0].shape
    attempt(run)


@dy
def gan():
    g = Sequential(Linear(4, 8, act="relu"), Linear(8, 6))
    d = Sequential(Linear(6, 8, act="leaky_relu"), Linear(8, 1))
    for m in (g, d):
        det(m)
    og = O.Adam(2e-2, beta1=0.5, parameter_list=g.parameters())
    od = O.RMSProp(2e-2, parameter_list=d.parameters())

    def bce(x, one):
        return L.mean(L.sigmoid_cross_entropy_with_logits(x, L.fill_constant_batch_size_like(x, [-1, 1], "float32", one)))
    for i in range(5):
        noise = to_variable(F(i, 5, 4))
        fake = g(noise)
        ld = bce(d(to_variable(F(50 + i, 5, 6))), 1.0) + bce(d(fake.detach()), 0.0)
        ld.backward()
        print(all(p.gradient() is None for p in g.parameters()))
        od.minimize(ld)
        d.clear_gradients()
        lg = bce(d(g(noise)), 1.0)
        lg.backward()
        og.minimize(lg)
        g.clear_gradients()
        d.clear_gradients()
        print("loss %.5f %.5f" % (float(ld.numpy()), float(lg.numpy())))
    show(g(to_variable(F(9, 2, 4))).numpy())


@dy
def wgan_gradient_penalty():
    d = Sequential(Conv2D(1, 3, 3, padding=1, act="leaky_relu"), Conv2D(3, 2, 3, padding=1, act="leaky_relu"))
    det(d)
    opt = O.Adam(1e-2, beta1=0., beta2=0.9, parameter_list=d.parameters())
    for i in range(5):
        real, fake = to_variable(F(i, 2, 1, 8, 8)), to_variable(F(70 + i, 2, 1, 8, 8))
        mixed = to_variable(0.3 * real.numpy() + 0.7 * fake.numpy())
        mixed.stop_gradient = False

        def run():
            (gr,) = D.grad(L.reduce_mean(d(mixed), dim=[1, 2, 3]), [mixed], create_graph=True, retain_graph=True, only_inputs=True)
            norm = L.sqrt(L.reduce_sum(L.square(L.reshape(gr, [2, -1])), dim=1) + 1e-12)
            loss = L.mean(d(fake)) - L.mean(d(real)) + 10.0 * L.mean(L.square(norm - 1.0))
            loss.backward()
            opt.minimize(loss)
            d.clear_gradients()
            return "loss %.4f" % float(loss.numpy())
        attempt(run)


@dy
def accumulated_gradients():
    m = Sequential(Linear(4, 5, act="tanh"), Linear(5, 1))
    det(m)
    opt = O.Momentum(0.1, 0.9, parameter_list=m.parameters())
    for i in range(9):
        loss = L.mean(L.square(m(to_variable(F(i, 3, 4))) - 0.5)) / 3.0
        loss.backward()
        if i % 3 == 2:
            show(m[0].weight.gradient())
            opt.minimize(loss)
            m.clear_gradients()
        print("loss %.5f" % float(loss.numpy()))
    show(m[1].weight.numpy())


class Tied(Layer):
    def __init__(self, words=7, d=4):
        super(Tied, self).__init__()
        self.emb = Embedding([words, d])
        self.hidden = Linear(d, d, act="tanh")
        self.bias = self.create_parameter([words], is_bias=True)

    def forward(self, x):
        return L.matmul(self.hidden(self.emb(x)), self.emb.weight, transpose_y=True) + self.bias


@dy
def tied_weights():
    m = Tied()
    det(m)
    print(sorted(n for n, _ in m.named_parameters()), len(m.state_dict()))
    opt = O.Adagrad(0.2, parameter_list=m.parameters())
    steps(m, opt, lambda i: L.mean(L.softmax_with_cross_entropy(m(to_variable(I(i, 7, 6))), to_variable(I(20 + i, 7, 6, 1)))))
    show(m.emb.weight.numpy(), m.bias.numpy())


@dy
def one_layer_twice():
    f = Linear(3, 3, act="tanh", param_attr=fluid.ParamAttr(name="shared_w"))
    m = Sequential(("a", f), ("b", f), ("c", Linear(3, 1)))
    det(m)
    print(len(m.parameters()), sorted(m.state_dict().keys()), [n for n, _ in m.named_sublayers()])
    steps(m, O.SGD(0.2, parameter_list=m.parameters()), lambda i: L.mean(L.square(m(to_variable(F(i, 4, 3))))))
    show(f.weight.numpy())


@dy
def frozen_part():
    m = Sequential(Linear(3, 4, act="relu"), Linear(4, 4, act="relu"), Linear(4, 1))
    det(m)
    for p in m[0].parameters():
        p.stop_gradient = True
    for p in m[1].parameters():
        p.trainable = False
    opt = O.Adam(0.05, parameter_list=[p for p in m.parameters() if p.trainable and not p.stop_gradient])
    before = [p.numpy().copy() for p in m.parameters()]
    steps(m, opt, lambda i: L.mean(L.square(m(to_variable(F(i, 4, 3))) - 1.0)), 3)
    print([bool(np.allclose(a, p.numpy())) for a, p in zip(before, m.parameters())], [p.trainable for p in m.parameters()])
    for p in m.parameters():
        p.stop_gradient = False
        p.trainable = True
    steps(m, O.SGD(0.05, parameter_list=m.parameters()), lambda i: L.mean(L.square(m(to_variable(F(i, 4, 3))) - 1.0)), 3)
    print([bool(np.allclose(a, p.numpy())) for a, p in zip(before, m.parameters())])
