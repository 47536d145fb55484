"""VGG: stacks of 3x3 convolutions between poolings, two wide fully connected layers (Simonyan and Zisserman, 2014)."""

from program_model import Model, repeat

BATCH, SIZE, CLASSES = 4, 32, 10
GROUPS, WIDTHS = (1, 1, 2, 2), (4, 8, 8, 12)


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_block(fluid, input, num_filter, groups, name):
    conv = input
    for i in range(groups):
        conv = fluid.layers.conv2d(
            input=conv,
            num_filters=num_filter,
            filter_size=3,
            stride=1,
            padding=1,
            act="relu",
            param_attr=fluid.param_attr.ParamAttr(name=name + str(i + 1) + "_weights"),
            bias_attr=False,
        )
    return fluid.layers.pool2d(input=conv, pool_size=2, pool_type="max", pool_stride=2)


def net(fluid, input):
    conv = input
    for i, (groups, width) in enumerate(zip(GROUPS, WIDTHS)):
        conv = conv_block(fluid, conv, width, groups, "conv%d_" % (i + 1))
    for name in ("fc6", "fc7"):
        conv = fluid.layers.fc(
            input=conv,
            size=24,
            act="relu",
            param_attr=fluid.param_attr.ParamAttr(name=name + "_weights"),
            bias_attr=fluid.param_attr.ParamAttr(name=name + "_offset"),
        )
        conv = fluid.layers.dropout(x=conv, dropout_prob=0.0)
    return fluid.layers.fc(
        input=conv,
        size=CLASSES,
        param_attr=fluid.param_attr.ParamAttr(name="fc8_weights"),
        bias_attr=fluid.param_attr.ParamAttr(name="fc8_offset"),
    )


def build(fluid):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    out = net(fluid, image)
    cost, prob = fluid.layers.softmax_with_cross_entropy(out, label, return_softmax=True)
    avg_cost = fluid.layers.mean(cost)
    acc_top1 = fluid.layers.accuracy(input=prob, label=label, k=1)
    acc_top5 = fluid.layers.accuracy(input=prob, label=label, k=5)

    def train():
        fluid.optimizer.Momentum(
            learning_rate=fluid.layers.cosine_decay(learning_rate=0.02, step_each_epoch=2, epochs=4),
            momentum=0.9,
            regularization=fluid.regularizer.L2Decay(1e-4),
        ).minimize(avg_cost)

    return Model(avg_cost, repeat(data, 5), [prob, acc_top1, acc_top5], train)
