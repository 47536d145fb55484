"""DeepFM on Criteo-like fields: a factorisation machine and a deep net over shared embeddings (Guo et al., 2017)."""

from program_model import Model, repeat

BATCH, FIELDS, FEATURES, WIDTH = 8, 6, 40, 4
LAYERS = (16, 8)


def data(rng):
    return {
        "feat_idx": rng.randint(0, FEATURES, (BATCH, FIELDS)).astype("int64"),
        "feat_value": rng.uniform(0, 1, (BATCH, FIELDS)).astype("float32"),
        "label": rng.randint(0, 2, (BATCH, 1)).astype("float32"),
    }


def build(fluid):
    layers = fluid.layers
    raw_idx = fluid.data(name="feat_idx", shape=[None, FIELDS], dtype="int64")
    raw_value = fluid.data(name="feat_value", shape=[None, FIELDS], dtype="float32")
    label = fluid.data(name="label", shape=[None, 1], dtype="float32")
    feat_idx = layers.reshape(raw_idx, [-1, 1])
    feat_value = layers.reshape(raw_value, [-1, FIELDS, 1])

    def table(size, name=None):
        return fluid.embedding(
            input=feat_idx,
            is_sparse=True,
            dtype="float32",
            size=[FEATURES + 1, size],
            padding_idx=0,
            param_attr=fluid.ParamAttr(
                name=name,
                initializer=fluid.initializer.TruncatedNormalInitializer(loc=0.0, scale=0.1),
                regularizer=None if size > 1 else fluid.regularizer.L1DecayRegularizer(1e-4),
            ),
        )

    first = layers.reshape(table(1), shape=[-1, FIELDS, 1])
    y_first_order = layers.reduce_sum(first * feat_value, 1)

    embeddings = layers.reshape(table(WIDTH, "feat_embeddings"), shape=[-1, FIELDS, WIDTH])
    embeddings = embeddings * feat_value
    summed_square = layers.square(layers.reduce_sum(embeddings, 1))
    square_summed = layers.reduce_sum(layers.square(embeddings), 1)
    y_second_order = 0.5 * layers.reduce_sum(summed_square - square_summed, 1, keep_dim=True)

    y_dnn = layers.reshape(embeddings, [-1, FIELDS * WIDTH])
    for size in LAYERS:
        y_dnn = layers.fc(
            input=y_dnn,
            size=size,
            act="relu",
            param_attr=fluid.ParamAttr(initializer=fluid.initializer.TruncatedNormalInitializer(scale=0.1)),
            bias_attr=fluid.ParamAttr(initializer=fluid.initializer.TruncatedNormalInitializer(scale=0.1)),
        )
    y_dnn = layers.fc(input=y_dnn, size=1, act=None)
    predict = layers.sigmoid(y_first_order + y_second_order + y_dnn)
    cost = layers.log_loss(input=predict, label=label)
    batch_cost = layers.reduce_sum(cost)
    both = layers.concat([1 - predict, predict], axis=1)
    auc, batch_auc, _ = layers.auc(input=both, label=layers.cast(label, "int64"), num_thresholds=2**8, slide_steps=20)

    def train():
        fluid.optimizer.Adam(
            learning_rate=0.01, lazy_mode=True, regularization=fluid.regularizer.L2DecayRegularizer(1e-3)
        ).minimize(batch_cost)

    return Model(batch_cost, repeat(data, 5), [predict, auc, batch_auc], train)
