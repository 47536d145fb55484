"""Wide and deep: a linear model over crossed features beside a deep net, each with its own optimizer (Cheng et al., 2016)."""

from program_model import Model, repeat

BATCH, WIDE, DEEP_NUMBERS, SPARSE = 8, 8, 5, ("education", "occupation", "relationship")


def data(rng):
    feed = {
        "wide_input": rng.randint(0, 2, (BATCH, WIDE)).astype("float32"),
        "deep_input": rng.uniform(-1, 1, (BATCH, DEEP_NUMBERS)).astype("float32"),
        "label": rng.randint(0, 2, (BATCH, 1)).astype("int64"),
    }
    feed.update((name, rng.randint(0, 10, (BATCH, 1)).astype("int64")) for name in SPARSE)
    return feed


def build(fluid):
    layers = fluid.layers
    wide_input = fluid.data(name="wide_input", shape=[None, WIDE], dtype="float32")
    deep_input = fluid.data(name="deep_input", shape=[None, DEEP_NUMBERS], dtype="float32")
    label = fluid.data(name="label", shape=[None, 1], dtype="int64")
    columns = [fluid.data(name=name, shape=[None, 1], dtype="int64") for name in SPARSE]
    wide = layers.fc(
        input=wide_input,
        size=1,
        act=None,
        param_attr=fluid.ParamAttr(name="wide_w", initializer=fluid.initializer.TruncatedNormal(0.0, 0.3)),
        bias_attr=fluid.ParamAttr(name="wide_b", learning_rate=0.5),
    )
    embedded = [
        layers.embedding(column, size=[10, 4], is_sparse=True, param_attr=fluid.ParamAttr(name="deep_emb_" + name))
        for name, column in zip(SPARSE, columns)
    ]
    deep = layers.concat([deep_input] + embedded, axis=1)
    for i, size in enumerate((16, 8)):
        deep = layers.fc(
            input=deep,
            size=size,
            act="relu",
            param_attr=fluid.ParamAttr(name="deep_w%d" % i, initializer=fluid.initializer.NormalInitializer(scale=0.3)),
        )
    deep = layers.fc(input=deep, size=1, act=None, param_attr=fluid.ParamAttr(name="deep_out"))
    prediction = layers.elementwise_add(wide, deep)
    predict = layers.sigmoid(prediction)
    two_class = layers.concat([layers.scale(predict, scale=-1.0, bias=1.0), predict], axis=-1)
    acc = layers.accuracy(input=two_class, label=label, k=1)
    auc_var, _, _ = layers.auc(input=two_class, label=label, num_thresholds=2**8)
    cost = layers.sigmoid_cross_entropy_with_logits(x=prediction, label=layers.cast(label, dtype="float32"))
    avg_cost = layers.mean(cost)

    def train():
        pairs = fluid.backward.append_backward(avg_cost)
        wide_pairs = [(p, g) for p, g in pairs if p.name.startswith("wide")]
        deep_pairs = [(p, g) for p, g in pairs if not p.name.startswith("wide")]
        fluid.optimizer.FtrlOptimizer(learning_rate=0.05, l1=0.001, l2=0.001).apply_gradients(wide_pairs)
        fluid.optimizer.Adagrad(learning_rate=0.05).apply_gradients(deep_pairs)

    return Model(avg_cost, repeat(data, 5), [predict, acc, auc_var], train)
