"""Explicit feature crosses beside a deep net: DCN's cross layers (Wang et al., 2017), xDeepFM's CIN (Lian et al., 2018)."""

from program_model import Model, repeat

VARIANTS = ("dcn", "xdeepfm")
BATCH, FIELDS, FEATURES, WIDTH, NUMBERS = 8, 5, 30, 4, 3
CIN = (6, 4)


def data(rng):
    return {
        "feat_idx": rng.randint(0, FEATURES, (BATCH, FIELDS)).astype("int64"),
        "feat_value": rng.uniform(0, 1, (BATCH, FIELDS)).astype("float32"),
        "dense": rng.uniform(-1, 1, (BATCH, NUMBERS)).astype("float32"),
        "label": rng.randint(0, 2, (BATCH, 1)).astype("float32"),
    }


def cross_layer(fluid, x0, x, prefix, width):
    """x0 * (x . w) + b + x."""
    layers = fluid.layers
    w = layers.create_parameter(
        [width], dtype="float32", name=prefix + "_w", default_initializer=fluid.initializer.NormalInitializer(0.0, 0.1)
    )
    b = layers.create_parameter([width], dtype="float32", name=prefix + "_b", is_bias=True)
    xw = layers.reduce_sum(layers.elementwise_mul(x, w), dim=1, keep_dim=True)
    return layers.elementwise_add(layers.elementwise_add(layers.elementwise_mul(x0, xw), b), x), w


def dcn(fluid, embeddings, dense):
    layers = fluid.layers
    x0 = layers.concat([layers.reshape(embeddings, [-1, FIELDS * WIDTH]), dense], axis=1)
    crossed, penalties = x0, []
    for i in range(2):
        crossed, w = cross_layer(fluid, x0, crossed, "cross_layer_%d" % i, FIELDS * WIDTH + NUMBERS)
        penalties.append(layers.reduce_sum(layers.square(w)))
    deep = layers.batch_norm(layers.fc(x0, 16, bias_attr=False), act="relu", data_layout="NHWC")
    deep = layers.fc(deep, 8, act="relu")
    logit = layers.fc(layers.concat([deep, crossed], axis=-1), 1)
    return logit, 1e-3 * layers.sum(penalties)


def xdeepfm(fluid, embeddings, dense):
    """Every CIN layer convolves the outer products of its maps and the first ones with kernels of size 1."""
    layers = fluid.layers
    xs, pooled = [embeddings], []
    x0 = layers.unsqueeze(layers.transpose(embeddings, [0, 2, 1]), 3)
    for size in CIN:
        last = layers.unsqueeze(layers.transpose(xs[-1], [0, 2, 1]), 2)
        product = layers.matmul(x0, last)
        product = layers.reshape(product, [-1, WIDTH, FIELDS * xs[-1].shape[1]])
        product = layers.unsqueeze(layers.transpose(product, [0, 2, 1]), 3)
        maps = layers.conv2d(
            product,
            num_filters=size,
            filter_size=1,
            bias_attr=False,
            param_attr=fluid.ParamAttr(
                regularizer=fluid.regularizer.L2DecayRegularizer(1e-4),
                initializer=fluid.initializer.TruncatedNormalInitializer(loc=0.0, scale=0.1),
            ),
        )
        maps = layers.reshape(maps, [-1, size, WIDTH])
        pooled.append(layers.reduce_sum(maps, 2))
        xs.append(maps)
    cin = layers.fc(layers.concat(pooled, 1), 1)
    deep = layers.fc(layers.reshape(embeddings, [-1, FIELDS * WIDTH]), 16, act="relu")
    return layers.sums([cin, layers.fc(deep, 1), layers.fc(dense, 1)]), None


def build(fluid, variant):
    layers = fluid.layers
    feat_idx = fluid.data(name="feat_idx", shape=[None, FIELDS], dtype="int64")
    feat_value = fluid.data(name="feat_value", shape=[None, FIELDS], dtype="float32")
    dense = fluid.data(name="dense", shape=[None, NUMBERS], dtype="float32")
    label = fluid.data(name="label", shape=[None, 1], dtype="float32")
    embeddings = fluid.embedding(
        feat_idx,
        [FEATURES, WIDTH],
        is_sparse=True,
        param_attr=fluid.ParamAttr(name="feat_emb", initializer=fluid.initializer.TruncatedNormal(scale=0.1)),
    )
    embeddings = layers.elementwise_mul(embeddings, feat_value, axis=0)
    logit, penalty = (dcn if variant == "dcn" else xdeepfm)(fluid, embeddings, dense)
    prob = layers.sigmoid(logit)
    avg_cost = layers.reduce_mean(layers.log_loss(input=prob, label=label))
    loss = avg_cost if penalty is None else avg_cost + penalty
    return Model(loss, repeat(data, 5), [prob], lambda: fluid.optimizer.Adam(learning_rate=0.01).minimize(loss))
