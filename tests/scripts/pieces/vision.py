from kit import fluid, np, section, train

L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


def im(*s):
    return R.rand(*s).astype("float32")


def lab(n, k, *s):
    return R.randint(0, k, (n,) + (s or (1,))).astype("int64")


def cbn(x, f, k, s=1, g=1, act="relu", name=None):
    return L.batch_norm(L.conv2d(x, f, k, s, (k - 1) // 2, groups=g, bias_attr=False, name=name), act=act)


@section
def alexnet_lrn():
    R.seed(0)
    x = L.data("x", [3, 16, 16])
    y = L.data("y", [1], dtype="int64")
    c = L.pool2d(L.lrn(L.conv2d(x, 4, 5, 2, 2, act="relu"), n=5), 3, "max", 2)
    c = L.pool2d(L.conv2d(c, 6, 3, padding=1, groups=2, act="relu"), 3, "avg", 2, ceil_mode=True, exclusive=False)
    p = L.fc(L.dropout(L.fc(c, 8, act="relu"), 0.0), 5, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    a1, a5 = L.accuracy(p, y, 1), L.accuracy(p, y, 3)
    train(
        loss,
        [{"x": im(3, 3, 16, 16), "y": lab(3, 5)} for _ in range(3)],
        O.Momentum(L.piecewise_decay([2], [0.1, 0.01]), 0.9, regularization=fluid.regularizer.L2Decay(1e-4)),
        [a1, a5],
    )


@section
def label_smooth_mixup():
    R.seed(0)
    x = L.data("x", [3, 8, 8])
    ya = L.data("ya", [1], dtype="int64")
    yb = L.data("yb", [1], dtype="int64")
    lam = L.data("lam", [1])
    o = L.fc(L.pool2d(cbn(x, 4, 3), pool_type="avg", global_pooling=True), 5)
    sm = lambda y: L.label_smooth(L.one_hot(y, 5), epsilon=0.1)
    f = lambda y: L.softmax_with_cross_entropy(o, sm(y), soft_label=True)
    loss = L.mean(lam * f(ya) + (1 - lam) * f(yb))
    train(
        loss,
        [{"x": im(4, 3, 8, 8), "ya": lab(4, 5), "yb": lab(4, 5), "lam": im(4, 1)} for _ in range(3)],
        O.Momentum(0.1, 0.9),
        [o],
    )


@section
def metric_learning():
    R.seed(0)
    for kind in ["npair", "triplet", "arcmargin", "quadruplet", "center"]:
        with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard(), fluid.scope_guard(
            fluid.Scope()
        ):
            print(kind)
            x = L.data("x", [6])
            y = L.data("y", [6, 1], dtype="int64", append_batch_size=False)
            x = L.data("xx", [6, 6], append_batch_size=False)
            e = L.fc(x, 4)
            if kind == "npair":
                e2 = L.reshape(e, [-1, 2, 4])
                a = L.squeeze(L.slice(e2, [1], [0], [1]), [1])
                p = L.squeeze(L.slice(e2, [1], [1], [2]), [1])
                lb = L.squeeze(L.slice(L.reshape(y, [-1, 2, 1]), [1], [0], [1]), [1])
                loss = L.npair_loss(a, p, L.cast(L.reshape(lb, [-1]), "float32"), l2_reg=0.002)
            elif kind == "triplet":
                e2 = L.reshape(L.l2_normalize(e, -1), [-1, 3, 4])
                s = [L.squeeze(L.slice(e2, [1], [k], [k + 1]), [1]) for k in range(3)]
                loss = L.reduce_mean(
                    L.relu(
                        L.reduce_sum(L.square(s[0] - s[1]), 1, keep_dim=True)
                        - L.reduce_sum(L.square(s[0] - s[2]), 1, keep_dim=True)
                        + 0.1
                    )
                )
            elif kind == "arcmargin":
                nrm = L.sqrt(L.reduce_sum(L.square(e), dim=1))
                inp = L.elementwise_div(e, nrm, axis=0)
                w = L.create_parameter([4, 5], "float32", name="aw", default_initializer=fluid.initializer.Xavier())
                wn = L.sqrt(L.reduce_sum(L.square(w), dim=0))
                w2 = L.elementwise_div(w, wn, axis=1)
                cos = L.mul(inp, w2)
                sin = L.sqrt(1.0 - L.square(cos) + 1e-6)
                phi = cos * float(np.cos(0.2)) - sin * float(np.sin(0.2))
                th = float(np.cos(np.pi - 0.2))
                mmv = float(np.sin(np.pi - 0.2) * 0.2)

                def mask(c):
                    return L.cast(c, "float32")

                if1 = mask(L.greater_than(cos, L.fill_constant([1], "float32", th))) if False else mask(cos > th)
                phi = if1 * phi + (1.0 - if1) * (cos - mmv)
                oh = L.one_hot(y, 5)
                out = (oh * phi + (1.0 - oh) * cos) * 8.0
                loss = L.mean(L.softmax_with_cross_entropy(out, y))
            elif kind == "quadruplet":
                d = L.matmul(e, e, transpose_y=True)
                loss = L.mean(L.softmax(d))
            else:
                loss = L.mean(L.softmax_with_cross_entropy(L.fc(e, 5), y)) + 0.1 * L.mean(
                    L.center_loss(
                        e, y, 5, 0.5, fluid.ParamAttr(name="cent", initializer=fluid.initializer.Constant(0.1)), True
                    )
                )
            train(
                loss,
                [{"xx": im(6, 6), "y": np.array([[0], [0], [1], [1], [2], [2]], "int64")} for _ in range(3)],
                O.Momentum(0.05, 0.9),
            )


@section
def video_models():
    R.seed(0)
    y = L.data("y", [1], dtype="int64")
    T = 3
    f = L.reshape(L.data("v", [T, 3, 6, 6]), [-1, 3, 6, 6])
    c = cbn(f, 4, 3)
    sh = L.temporal_shift(c, T, 0.25)
    c = cbn(sh, 4, 3)
    pool = L.pool2d(c, pool_type="avg", global_pooling=True)
    ft = L.reshape(pool, [-1, T, 4])
    tsn = L.reduce_mean(ft, 1)
    th, ph, g = [L.reshape(L.conv2d(c, 2, 1, name=n), [0, 2, -1]) for n in ("theta", "phi", "g")]
    att = L.softmax(L.matmul(th, ph, transpose_x=True))
    nl = L.reshape(L.matmul(g, att, transpose_y=True), [0, 2, 6, 6])
    c2 = L.elementwise_add(
        c, L.batch_norm(L.conv2d(nl, 4, 1), param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.0)))
    )
    nlf = L.reduce_mean(L.reshape(L.pool2d(c2, pool_type="avg", global_pooling=True), [-1, T, 4]), 1)
    a = L.fc(ft, 2, num_flatten_dims=2, act="softmax")
    cl = L.matmul(a, ft, transpose_x=True)
    cl = L.l2_normalize(L.reshape(cl, [-1, 8]), 1)
    p = L.fc([tsn, nlf, cl], 4, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    train(
        loss,
        [{"v": im(2, T, 3, 6, 6), "y": lab(2, 4)} for _ in range(3)],
        O.Momentum(0.05, 0.9, use_nesterov=True),
        [p],
    )


@section
def attention_lstm_video():
    R.seed(0)
    f = L.data("f", [6], lod_level=1)
    y = L.data("y", [3])
    e = L.fc(f, 5, act="tanh")
    fw, _ = L.dynamic_lstm(L.fc(e, 16), 16, use_peepholes=True)
    bw, _ = L.dynamic_lstm(L.fc(e, 16), 16, is_reverse=True)
    h = L.concat([fw, bw], 1)
    w = L.sequence_softmax(L.fc(h, 1))
    p = L.sequence_pool(L.elementwise_mul(h, w, axis=0), "sum")
    o = L.fc(p, 3, act="sigmoid")
    loss = L.mean(L.reduce_sum(-y * L.log(o + 1e-6) - (1 - y) * L.log(1 - o + 1e-6), 1))
    train(
        loss,
        [
            {"f": fluid.create_lod_tensor(im(5, 6), [[2, 3]], pl), "y": R.randint(0, 2, (2, 3)).astype("float32")}
            for _ in range(3)
        ],
        O.RMSProp(0.01),
        [w],
        rn=False,
    )


@section
def gan_pieces():
    R.seed(0)
    x = L.data("x", [3, 8, 8])
    a = L.data("a", [2])
    lb = L.expand(L.unsqueeze(L.unsqueeze(a, [2]), [3]), [1, 1, 8, 8])
    z = L.concat([x, lb], 1)

    def inorm(v):
        return L.instance_norm(
            v, param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(1.0)), bias_attr=fluid.ParamAttr()
        )

    h = L.relu(inorm(L.conv2d(L.pad2d(z, [1, 1, 1, 1], "reflect"), 4, 3)))
    d = L.relu(inorm(L.conv2d(h, 8, 4, 2, 1)))
    r = d + inorm(L.conv2d(d, 8, 3, 1, 1))
    u = L.relu(inorm(L.conv2d_transpose(r, 4, filter_size=4, stride=2, padding=1)))
    g = L.tanh(L.conv2d(u, 3, 7, 1, 3, bias_attr=False))
    dd = L.leaky_relu(L.conv2d(g, 4, 4, 2, 1), 0.01)
    src = L.conv2d(dd, 1, 3, 1, 1)
    cls = L.reshape(L.conv2d(dd, 2, 4), [-1, 2])
    loss = (
        -1 * L.mean(src)
        + L.mean(L.sigmoid_cross_entropy_with_logits(cls, a))
        + 10.0 * L.mean(L.abs(g - x))
        + L.reduce_mean(L.square(L.image_resize(g, [4, 4]) - L.resize_nearest(x, [4, 4])))
    )
    sn = L.spectral_norm(L.create_parameter([4, 3, 2, 2], "float32", name="snw"), dim=0, power_iters=1)
    exe = train(
        loss,
        [{"x": im(2, 3, 8, 8), "a": R.randint(0, 2, (2, 2)).astype("float32")} for _ in range(3)],
        O.Adam(0.0002, 0.5, 0.999),
        [g, cls],
    )


@section
def seg_losses():
    R.seed(0)
    x = L.data("x", [3, 8, 8])
    y = L.data("y", [8, 8], dtype="int32")
    c = cbn(x, 4, 3)
    b = L.resize_bilinear(L.conv2d(L.pool2d(c, 2, "max", 2), 4, 1), out_shape=[8, 8], align_corners=False, align_mode=0)
    dl = L.conv2d(c, 4, 3, padding=2, dilation=2)
    lg = L.conv2d(L.concat([b, dl], 1), 3, 1)
    lg = L.transpose(lg, [0, 2, 3, 1])
    lr = L.reshape(lg, [-1, 3])
    lb = L.cast(L.reshape(y, [-1, 1]), "int64")
    mask = (
        L.cast(lb != 255, "float32")
        if False
        else L.cast(L.not_equal(lb, L.fill_constant([1], "int64", 255)), "float32")
    )
    l = L.softmax_with_cross_entropy(lr, lb, ignore_index=255)
    loss = L.reduce_sum(l * mask) / (L.reduce_sum(mask) + 1e-5)
    pr = L.argmax(lr, 1)
    mi, wr, co = L.mean_iou(
        L.cast(pr, "int32"), L.cast(L.reshape(L.elementwise_min(y, L.fill_constant([1], "int32", 2)), [-1]), "int32"), 3
    )
    dice = L.dice_loss(L.softmax(lr), L.elementwise_min(lb, L.fill_constant([1], "int64", 2)))
    Y = R.randint(0, 3, (2, 8, 8)).astype("int32")
    Y[0, :2] = 255
    train(
        loss + dice,
        [{"x": im(2, 3, 8, 8), "y": Y} for _ in range(3)],
        O.Momentum(L.polynomial_decay(0.1, 10, 0.0, 0.9), 0.9),
        [mi, wr, co, dice],
    )


@section
def se_shuffle_ghost():
    R.seed(0)
    x = L.data("x", [4, 8, 8])
    y = L.data("y", [1], dtype="int64")
    c = cbn(x, 8, 1)
    s = L.pool2d(c, pool_type="avg", global_pooling=True)
    e = L.fc(L.fc(s, 2, act="relu"), 8, act="hard_sigmoid")
    c = L.elementwise_mul(c, e, axis=0)
    a, b = L.split(c, 2, dim=1)
    b = L.batch_norm(L.conv2d(b, 4, 3, padding=1, groups=4, use_cudnn=False))
    c = L.shuffle_channel(L.concat([a, b], 1), 2)
    c = (
        L.swish(c)
        + L.hard_swish(c)
        + L.prelu(c, "channel")
        + L.elu(c, 0.3)
        + L.relu6(c)
        + L.brelu(c, -0.5, 0.5)
        + L.stanh(c)
        + L.thresholded_relu(c, 0.1)
        + L.softshrink(c, 0.1)
        + L.hard_shrink(c, 0.2)
        + L.soft_relu(c, 5.0)
        + L.maxout(L.concat([c, c], 1), 2)
        + L.selu(c)
        + L.logsigmoid(c)
        + L.tanh_shrink(c)
        + L.softplus(c)
    )
    c = L.group_norm(c, 2)
    c = L.pixel_shuffle(c, 2)
    c = L.space_to_depth(L.concat([c, c], 1), 2)
    c = L.adaptive_pool2d(c, [2, 2], "max")
    p = L.fc(c, 3, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    train(loss, [{"x": im(3, 4, 8, 8) - 0.5, "y": lab(3, 3)} for _ in range(3)], O.SGD(0.05), [p])


@section
def conv3d_c3d():
    R.seed(0)
    x = L.data("x", [2, 4, 6, 6])
    y = L.data("y", [1], dtype="int64")
    c = L.conv3d(x, 3, 3, padding=1, act="relu")
    c = L.pool3d(c, 2, "max", 2)
    c = L.batch_norm(L.conv3d(c, 4, [1, 3, 3], padding=[0, 1, 1], groups=1))
    t = L.conv3d_transpose(c, 2, filter_size=2, stride=2)
    p = L.fc(L.adaptive_pool3d(t, [1, 2, 2], "avg"), 3, act="softmax")
    loss = L.mean(L.cross_entropy(p, y))
    train(loss, [{"x": im(2, 2, 4, 6, 6), "y": lab(2, 3)} for _ in range(3)], O.Adam(0.01), [p])
