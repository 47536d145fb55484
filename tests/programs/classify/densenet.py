"""DenseNet: every layer sees the concatenation of all before it (Huang et al., 2016)."""

from program_model import Model, repeat

BATCH, SIZE, CLASSES = 4, 32, 8
GROWTH, BLOCKS, BN_SIZE = 4, (2, 3, 2), 2


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def bn_act(fluid, input, name):
    return fluid.layers.batch_norm(
        input=input,
        act="relu",
        param_attr=fluid.ParamAttr(name=name + "_scale"),
        bias_attr=fluid.ParamAttr(name + "_offset"),
        moving_mean_name=name + "_mean",
        moving_variance_name=name + "_variance",
    )


def conv(fluid, input, num_filters, filter_size, stride, padding, name):
    return fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        act=None,
        bias_attr=False,
        param_attr=fluid.ParamAttr(name=name + "_weights"),
    )


def dense_layer(fluid, input, name):
    net = bn_act(fluid, input, name + "_bn1")
    net = conv(fluid, net, BN_SIZE * GROWTH, 1, 1, 0, name + "_x1")
    net = bn_act(fluid, net, name + "_bn2")
    net = conv(fluid, net, GROWTH, 3, 1, 1, name + "_x2")
    net = fluid.layers.dropout(x=net, dropout_prob=0.0)
    return fluid.layers.concat([input, net], axis=1)


def transition(fluid, input, name):
    net = bn_act(fluid, input, name + "_blk_bn")
    net = conv(fluid, net, input.shape[1] // 2, 1, 1, 0, name + "_blk")
    return fluid.layers.pool2d(input=net, pool_size=2, pool_stride=2, pool_type="avg")


def build(fluid):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    net = conv(fluid, image, 2 * GROWTH, 7, 2, 3, "conv1")
    net = bn_act(fluid, net, "conv1_bn")
    net = fluid.layers.pool2d(input=net, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max")
    for block, count in enumerate(BLOCKS):
        for i in range(count):
            net = dense_layer(fluid, net, "conv%d_%d" % (block + 2, i + 1))
        if block != len(BLOCKS) - 1:
            net = transition(fluid, net, "conv%d" % (block + 2))
    net = bn_act(fluid, net, "conv_final_bn")
    pool = fluid.layers.pool2d(input=net, global_pooling=True, pool_type="avg")
    bias_attr = fluid.ParamAttr(name="fc_offset", initializer=fluid.initializer.Constant(0.0))
    out = fluid.layers.fc(input=pool, size=CLASSES, bias_attr=bias_attr)
    loss = fluid.layers.mean(fluid.layers.softmax_with_cross_entropy(out, label))

    def train():
        schedule = fluid.layers.cosine_decay(0.02, 3, 2)
        fluid.optimizer.Momentum(schedule, 0.9, use_nesterov=True).minimize(loss)

    return Model(loss, repeat(data, 5), [out], train)
