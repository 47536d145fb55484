"""fluid.nets, normalisations, losses and image layers in small trained nets."""

from program_model import Model, repeat

VARIANTS = ("conv_pool", "conv_group", "attention", "glu", "norms", "losses", "padding_idx", "resize", "shapes", "math")


def data(rng):
    return {
        "img": rng.uniform(-1, 1, (4, 2, 8, 8)).astype("float32"),
        "q": rng.uniform(-1, 1, (4, 3, 8)).astype("float32"),
        "y": rng.uniform(0, 1, (4, 1)).astype("float32"),
        "label": rng.randint(0, 5, (4, 1)).astype("int64"),
        "ids": rng.randint(0, 6, (4, 3, 1)).astype("int64"),
    }


def conv_pool(fluid, v):
    net = fluid.nets.simple_img_conv_pool(v["img"], num_filters=4, filter_size=3, pool_size=2, pool_stride=2, act="relu")
    return fluid.layers.lrn(net, n=3)


def conv_group(fluid, v):
    return fluid.nets.img_conv_group(
        v["img"],
        conv_num_filter=[4, 4],
        pool_size=2,
        conv_act="relu",
        conv_with_batchnorm=[True, False],
        pool_stride=2,
        pool_type="avg",
    )


def attention(fluid, v):
    keys = fluid.layers.fc(v["q"], 8, num_flatten_dims=2)
    return fluid.nets.scaled_dot_product_attention(v["q"], keys, keys, num_heads=2, dropout_rate=0.0)


def glu(fluid, v):
    return fluid.nets.glu(fluid.layers.fc(v["q"], 8, num_flatten_dims=2), dim=-1)


def norms(fluid, v):
    layers = fluid.layers
    net = layers.conv2d(v["img"], 4, 3)
    parts = [
        layers.group_norm(net, 2),
        layers.instance_norm(net),
        layers.l2_normalize(net, axis=1),
        layers.layer_norm(net, begin_norm_axis=2),
    ]
    return layers.reduce_mean(layers.concat(parts, axis=1), dim=[2, 3])


def losses(fluid, v):
    layers = fluid.layers
    logits = layers.fc(v["img"], 5)
    one = layers.fc(v["img"], 1)
    parts = [
        layers.softmax_with_cross_entropy(logits, v["label"]),
        layers.sigmoid_cross_entropy_with_logits(one, v["y"]),
        layers.huber_loss(one, v["y"], 0.3),
        layers.log_loss(layers.sigmoid(one), v["y"]),
        layers.bpr_loss(layers.softmax(logits), v["label"]),
        layers.smooth_l1(logits, layers.one_hot(v["label"], 5)),
        layers.margin_rank_loss(v["y"], one, layers.fc(v["img"], 1)),
        layers.rank_loss(v["y"], one, layers.fc(v["img"], 1)),
        layers.cos_sim(logits, layers.fc(v["img"], 5)),
        layers.hsigmoid(logits, v["label"], 5),
    ]
    return layers.concat(parts, axis=1)


def padding_idx(fluid, v):
    layers = fluid.layers
    emb = layers.embedding(v["ids"], [6, 4], padding_idx=2)
    last = fluid.embedding(layers.squeeze(v["ids"], [2]), [6, 4], padding_idx=-1, is_sparse=True)
    return layers.concat([emb, last], axis=2)


def resize(fluid, v):
    layers = fluid.layers
    net = layers.conv2d(v["img"], 4, 3, padding=1)
    parts = [
        layers.resize_bilinear(net, out_shape=[5, 11]),
        layers.resize_bilinear(net, [5, 11], align_corners=False, align_mode=0),
        layers.resize_nearest(net, out_shape=[5, 11], align_corners=False),
        layers.adaptive_pool2d(net, [5, 11], "avg"),
        layers.pad2d(layers.slice(net, [2, 3], [1, 1], [4, 8]), [1, 1, 2, 2], mode="reflect"),
    ]
    # not reduce_mean(stack(parts)): 1.8.5 leaves reductions of rank 5 and above unwritten
    return layers.pixel_shuffle(layers.scale(layers.sums(parts), 0.2), 2)


def shapes(fluid, v):
    layers = fluid.layers
    a, b, c = layers.split(layers.fc(v["q"], 9, num_flatten_dims=2), 3, dim=2)
    s = layers.stack([a, b, c], axis=1)
    t = layers.transpose(s, [0, 3, 2, 1])
    e = layers.expand(layers.unsqueeze(layers.reduce_max(t, dim=1), [1]), [1, 2, 1, 1])
    g = layers.gather(layers.reshape(e, [-1, 3]), layers.cast(layers.squeeze(v["label"], [1]), "int32"))
    k, _ = layers.topk(layers.reshape(s, [0, -1]), 4)
    p = layers.pad(layers.flatten(layers.reverse(s, axis=[1])), [0, 0, 1, 1], 0.5)
    f = layers.slice(layers.crop(p, shape=[4, 6], offsets=[0, 2]), [1], [0], [5])
    w, _ = layers.argsort(f, axis=1)
    return layers.concat([g, k, w, layers.cumsum(f, axis=1), layers.strided_slice(p, [1], [0], [9], [2])], axis=1)


def math(fluid, v):
    layers = fluid.layers
    h = layers.fc(v["q"], 6, num_flatten_dims=2)
    names = (
        "exp",
        "tanh",
        "sigmoid",
        "softplus",
        "softsign",
        "relu6",
        "elu",
        "leaky_relu",
        "gelu",
        "swish",
        "hard_sigmoid",
        "abs",
        "square",
        "sin",
        "cos",
        "logsigmoid",
        "stanh",
        "tanh_shrink",
        "hard_swish",
        "brelu",
        "erf",
    )
    parts = [getattr(layers, n)(h) for n in names]
    parts += [
        h * 2.0 + 1.0,
        1.0 / (h * h + 1.0),
        layers.elementwise_max(h, -h),
        layers.clip(h, -0.5, 0.5),
        layers.pow(h, 2.0),
        (h * h + 0.1) ** 0.5,
    ]
    return layers.sums(parts)


def build(fluid, variant):
    layers = fluid.layers
    v = {
        "img": layers.data("img", [2, 8, 8]),
        "q": layers.data("q", [4, 3, 8], append_batch_size=False),
        "y": layers.data("y", [1]),
        "label": layers.data("label", [1], dtype="int64"),
        "ids": layers.data("ids", [3, 1], dtype="int64"),
    }
    out = globals()[variant](fluid, v)
    predict = layers.fc(out, 1, act="sigmoid")
    loss = layers.mean(layers.square_error_cost(predict, v["y"])) + 0.01 * layers.reduce_mean(out)
    return Model(loss, repeat(data), [out], train=lambda: fluid.optimizer.SGD(0.1).minimize(loss))
