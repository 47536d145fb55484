"""Convolution, pooling and batch norm, twice; Momentum with weight decay; tested through clone(for_test)."""

from program_model import Model, repeat


def data(rng):
    return {"img": rng.uniform(-1, 1, (8, 1, 12, 12)).astype("float32"), "label": rng.randint(0, 5, (8, 1)).astype("int64")}


def build(fluid):
    img = fluid.layers.data(name="img", shape=[1, 12, 12], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    conv = fluid.layers.conv2d(img, num_filters=4, filter_size=3, padding=1, bias_attr=False)
    conv = fluid.layers.batch_norm(conv, act="relu")
    pool = fluid.layers.pool2d(conv, pool_size=2, pool_type="max", pool_stride=2)
    conv = fluid.layers.conv2d(pool, num_filters=6, filter_size=3, act=None)
    conv = fluid.layers.batch_norm(conv, act="relu", momentum=0.8)
    pool = fluid.layers.pool2d(conv, pool_type="avg", global_pooling=True)
    logits = fluid.layers.fc(pool, size=5)
    prob = fluid.layers.softmax(logits)
    cost = fluid.layers.softmax_with_cross_entropy(logits, label)
    loss = fluid.layers.mean(cost)
    acc = fluid.layers.accuracy(prob, label)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data)

    def train():
        fluid.optimizer.Momentum(learning_rate=0.02, momentum=0.9, regularization=fluid.regularizer.L2Decay(1e-3)).minimize(
            loss
        )

    return Model(loss, feeds, [prob, acc], train, test=(test_program, feeds[1], [loss, prob]))
