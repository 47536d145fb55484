"""MobileNets: depthwise separable convolutions (V1, Howard et al., 2017), inverted residuals (V2, Sandler et al., 2018),
squeeze and excitation with hard swish (V3, Howard et al., 2019)."""

from program_model import Model, repeat

VARIANTS = ("v1", "v2", "v3")
BATCH, SIZE, CLASSES = 4, 32, 8


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_bn_layer(fluid, input, filter_size, num_filters, stride, padding, num_groups=1, act=None, name=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        groups=num_groups,
        act=None,
        use_cudnn=num_groups == 1,
        param_attr=fluid.ParamAttr(name=name + "_weights", initializer=fluid.initializer.MSRA()),
        bias_attr=False,
    )
    bn = fluid.layers.batch_norm(
        input=conv,
        param_attr=fluid.ParamAttr(name=name + "_bn_scale", regularizer=fluid.regularizer.L2Decay(0.0)),
        bias_attr=fluid.ParamAttr(name=name + "_bn_offset", regularizer=fluid.regularizer.L2Decay(0.0)),
        moving_mean_name=name + "_bn_mean",
        moving_variance_name=name + "_bn_variance",
    )
    if act == "relu6":
        return fluid.layers.relu6(bn)
    if act == "hard_swish":
        return fluid.layers.hard_swish(bn)
    return fluid.layers.relu(bn) if act == "relu" else bn


def depthwise_separable(fluid, input, num_filters1, num_filters2, num_groups, stride, scale, name):
    depthwise = conv_bn_layer(
        fluid, input, 3, int(num_filters1 * scale), stride, 1, int(num_groups * scale), "relu", name + "_dw"
    )
    return conv_bn_layer(fluid, depthwise, 1, int(num_filters2 * scale), 1, 0, act="relu", name=name + "_sep")


def mobilenet_v1(fluid, input, scale=0.25):
    net = conv_bn_layer(fluid, input, 3, int(32 * scale), 2, 1, act="relu", name="conv1")
    for i, (inner, outer, stride) in enumerate(((32, 32, 1), (32, 48, 2), (48, 48, 1), (48, 64, 2))):
        net = depthwise_separable(fluid, net, inner, outer, inner, stride, scale, "conv%d_1" % (i + 2))
    return fluid.layers.pool2d(input=net, pool_type="avg", global_pooling=True)


def inverted_residual_unit(fluid, input, num_filters, stride, expansion, name):
    channels = input.shape[1]
    expand = conv_bn_layer(fluid, input, 1, channels * expansion, 1, 0, act="relu6", name=name + "_expand")
    depthwise = conv_bn_layer(
        fluid, expand, 3, channels * expansion, stride, 1, channels * expansion, "relu6", name + "_dwise"
    )
    linear = conv_bn_layer(fluid, depthwise, 1, num_filters, 1, 0, name=name + "_linear")
    if stride == 1 and channels == num_filters:
        return fluid.layers.elementwise_add(x=input, y=linear, act=None)
    return linear


def mobilenet_v2(fluid, input):
    net = conv_bn_layer(fluid, input, 3, 6, 2, 1, act="relu6", name="conv1_1")
    for stage, (expansion, width, count, stride) in enumerate(((1, 4, 1, 1), (3, 6, 2, 2), (3, 8, 2, 2))):
        for i in range(count):
            name = "conv%d_%d" % (stage + 2, i + 1)
            net = inverted_residual_unit(fluid, net, width, stride if i == 0 else 1, expansion, name)
    net = conv_bn_layer(fluid, net, 1, 24, 1, 0, act="relu6", name="conv9")
    return fluid.layers.pool2d(input=net, pool_type="avg", global_pooling=True)


def se_block(fluid, input, num_out_filter, ratio=4, name=None):
    pool = fluid.layers.pool2d(input=input, pool_type="avg", global_pooling=True, use_cudnn=False)
    conv1 = fluid.layers.conv2d(
        input=pool,
        filter_size=1,
        num_filters=int(num_out_filter // ratio),
        act="relu",
        param_attr=fluid.ParamAttr(name=name + "_1_weights"),
        bias_attr=fluid.ParamAttr(name=name + "_1_offset"),
    )
    conv2 = fluid.layers.conv2d(
        input=conv1,
        filter_size=1,
        num_filters=num_out_filter,
        act="hard_sigmoid",
        param_attr=fluid.ParamAttr(name=name + "_2_weights"),
        bias_attr=fluid.ParamAttr(name=name + "_2_offset"),
    )
    return fluid.layers.elementwise_mul(x=input, y=conv2, axis=0)


def residual_unit(fluid, input, num_mid_filter, num_out_filter, stride, filter_size, act, use_se, name):
    conv0 = conv_bn_layer(fluid, input, 1, num_mid_filter, 1, 0, act=act, name=name + "_expand")
    conv1 = conv_bn_layer(
        fluid,
        conv0,
        filter_size,
        num_mid_filter,
        stride,
        (filter_size - 1) // 2,
        num_mid_filter,
        act,
        name + "_depthwise",
    )
    if use_se:
        conv1 = se_block(fluid, conv1, num_mid_filter, name=name + "_se")
    conv2 = conv_bn_layer(fluid, conv1, 1, num_out_filter, 1, 0, name=name + "_linear")
    if input.shape[1] != num_out_filter or stride != 1:
        return conv2
    return fluid.layers.elementwise_add(x=input, y=conv2, act=None)


def mobilenet_v3(fluid, input):
    net = conv_bn_layer(fluid, input, 3, 8, 2, 1, act="hard_swish", name="conv1")
    plan = ((3, 8, 8, True, "relu", 2), (3, 16, 8, False, "relu", 1), (5, 16, 12, True, "hard_swish", 2))
    for i, (kernel, mid, out, use_se, act, stride) in enumerate(plan):
        net = residual_unit(fluid, net, mid, out, stride, kernel, act, use_se, "conv%d" % (i + 2))
    net = conv_bn_layer(fluid, net, 1, 24, 1, 0, act="hard_swish", name="conv_last")
    net = fluid.layers.pool2d(input=net, pool_type="avg", global_pooling=True, use_cudnn=False)
    net = fluid.layers.conv2d(
        input=net,
        num_filters=32,
        filter_size=1,
        param_attr=fluid.ParamAttr(name="last_1x1_conv_weights"),
        bias_attr=False,
    )
    return fluid.layers.dropout(fluid.layers.hard_swish(net), dropout_prob=0.0)


def build(fluid, variant):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    features = {"v1": mobilenet_v1, "v2": mobilenet_v2, "v3": mobilenet_v3}[variant](fluid, image)
    out = fluid.layers.fc(
        input=features,
        size=CLASSES,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.MSRA(), name="fc_weights"),
        bias_attr=fluid.ParamAttr(name="fc_offset"),
    )
    cost, prob = fluid.layers.softmax_with_cross_entropy(out, label, return_softmax=True)
    avg_cost = fluid.layers.mean(cost)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data, 5)

    def train():
        fluid.optimizer.RMSProp(
            learning_rate=fluid.layers.exponential_decay(1e-3, 2, 0.9, staircase=True),
            momentum=0.9,
            regularization=fluid.regularizer.L2Decay(4e-5),
        ).minimize(avg_cost)

    return Model(avg_cost, feeds, [prob], train, test=(test_program, feeds[0], [prob]))
