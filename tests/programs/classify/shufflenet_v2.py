"""ShuffleNetV2: half of the channels pass by, the rest is convolved, then both are shuffled (Ma et al., 2018)."""

from program_model import Model, repeat

BATCH, SIZE, CLASSES = 4, 32, 8


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_bn_layer(fluid, input, filter_size, num_filters, stride, padding, num_groups=1, if_act=True, name=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        groups=num_groups,
        act=None,
        use_cudnn=num_groups == 1,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.MSRA(), name=name + "_weights"),
        bias_attr=False,
    )
    return fluid.layers.batch_norm(
        input=conv,
        act="relu" if if_act else None,
        param_attr=fluid.ParamAttr(name=name + "_bn_scale"),
        bias_attr=fluid.ParamAttr(name=name + "_bn_offset"),
        moving_mean_name=name + "_bn_mean",
        moving_variance_name=name + "_bn_variance",
    )


def channel_shuffle(fluid, x, groups):
    channels, height, width = x.shape[1], x.shape[2], x.shape[3]
    x = fluid.layers.reshape(x=x, shape=[0, groups, channels // groups, height, width])
    x = fluid.layers.transpose(x=x, perm=[0, 2, 1, 3, 4])
    return fluid.layers.reshape(x=x, shape=[0, channels, height, width])


def unit(fluid, input, num_filters, stride, name):
    half = num_filters // 2
    if stride == 1:
        kept, worked = fluid.layers.split(input, num_or_sections=[half, half], dim=1)
    else:
        kept = conv_bn_layer(fluid, input, 3, input.shape[1], 2, 1, input.shape[1], False, name + "_4")
        kept, worked = conv_bn_layer(fluid, kept, 1, half, 1, 0, name=name + "_5"), input
    conv = conv_bn_layer(fluid, worked, 1, half, 1, 0, name=name + "_1")
    conv = conv_bn_layer(fluid, conv, 3, half, stride, 1, half, False, name + "_2")
    conv = conv_bn_layer(fluid, conv, 1, half, 1, 0, name=name + "_3")
    return channel_shuffle(fluid, fluid.layers.concat([kept, conv], axis=1), 2)


def build(fluid):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    net = conv_bn_layer(fluid, image, 3, 6, 2, 1, name="stage1_conv")
    net = fluid.layers.pool2d(input=net, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max")
    for stage, (width, count) in enumerate(((8, 2), (16, 2))):
        for i in range(count):
            net = unit(fluid, net, width, 2 if i == 0 else 1, "stage_%d_%d" % (stage + 2, i + 1))
    net = conv_bn_layer(fluid, net, 1, 24, 1, 0, name="conv5")
    net = fluid.layers.shuffle_channel(net, group=4)
    pool = fluid.layers.pool2d(input=net, pool_size=2, pool_stride=1, pool_padding=0, pool_type="avg")
    out = fluid.layers.fc(input=pool, size=CLASSES, act="softmax", param_attr=fluid.ParamAttr(name="fc6_weights"))
    avg_cost = fluid.layers.mean(fluid.layers.cross_entropy(input=out, label=label))

    def train():
        schedule = fluid.layers.polynomial_decay(0.02, decay_steps=10, end_learning_rate=0.001, power=1.0)
        fluid.optimizer.Momentum(schedule, momentum=0.9, regularization=fluid.regularizer.L2Decay(4e-5)).minimize(
            avg_cost
        )

    return Model(avg_cost, repeat(data, 5), [out], train)
