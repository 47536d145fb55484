"""Inception: GoogLeNet's modules with its two auxiliary heads (Szegedy et al., 2014), and V4's factorised ones (2016)."""

from program_model import Model, repeat

VARIANTS = ("googlenet", "v4")
BATCH, SIZE, CLASSES = 3, 32, 8


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_layer(fluid, input, num_filters, filter_size, stride=1, act=None, name=None):
    channels = input.shape[1]
    stdv = (3.0 / (filter_size**2 * channels)) ** 0.5
    return fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=(filter_size - 1) // 2,
        act=act,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Uniform(-stdv, stdv), name=name + "_weights"),
        bias_attr=False,
    )


def inception(fluid, input, f1, f3r, f3, f5r, f5, proj, name):
    conv1 = conv_layer(fluid, input, f1, 1, name=name + "_1x1")
    conv3 = conv_layer(fluid, conv_layer(fluid, input, f3r, 1, name=name + "_3x3_reduce"), f3, 3, name=name + "_3x3")
    conv5 = conv_layer(fluid, conv_layer(fluid, input, f5r, 1, name=name + "_5x5_reduce"), f5, 5, name=name + "_5x5")
    pool = fluid.layers.pool2d(input=input, pool_size=3, pool_stride=1, pool_padding=1, pool_type="max")
    convprj = fluid.layers.conv2d(input=pool, filter_size=1, num_filters=proj, stride=1, padding=0, name=name + "_proj")
    return fluid.layers.relu(fluid.layers.concat(input=[conv1, conv3, conv5, convprj], axis=1))


def head(fluid, input, name):
    pool = fluid.layers.pool2d(input=input, pool_size=3, pool_stride=3, pool_type="avg")
    conv = conv_layer(fluid, pool, 8, 1, name="conv_" + name)
    fc = fluid.layers.fc(input=fluid.layers.flatten(conv, axis=1), size=16, act="relu", name="fc1_" + name)
    drop = fluid.layers.dropout(x=fc, dropout_prob=0.0, dropout_implementation="upscale_in_train")
    return fluid.layers.fc(input=drop, size=CLASSES, act="softmax", name=name)


def googlenet(fluid, image):
    conv = conv_layer(fluid, image, 8, 5, 2, name="conv1")
    pool = fluid.layers.pool2d(input=conv, pool_size=3, pool_type="max", pool_stride=2)
    conv = conv_layer(fluid, conv_layer(fluid, pool, 8, 1, name="conv2_1x1"), 12, 3, name="conv2_3x3")
    ince3a = inception(fluid, conv, 4, 6, 8, 2, 4, 4, "ince3a")
    ince4a = inception(fluid, ince3a, 6, 4, 8, 2, 4, 4, "ince4a")
    pooled = fluid.layers.pool2d(input=ince4a, pool_size=3, pool_type="max", pool_stride=2, ceil_mode=True)
    ince5a = inception(fluid, pooled, 6, 6, 8, 4, 4, 4, "ince5a")
    average = fluid.layers.pool2d(input=ince5a, pool_type="avg", global_pooling=True)
    out = fluid.layers.fc(input=fluid.layers.dropout(average, 0.0), size=CLASSES, act="softmax", name="out")
    return out, [head(fluid, ince3a, "out1"), head(fluid, ince4a, "out2")]


def conv_bn_layer(fluid, input, num_filters, filter_size, stride=1, padding=0, name=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        param_attr=fluid.ParamAttr(name=name + "_weights"),
        bias_attr=False,
        name=name,
    )
    return fluid.layers.batch_norm(
        input=conv,
        act="relu",
        name=name + "_bn",
        param_attr=fluid.ParamAttr(name=name + "_bn_scale"),
        bias_attr=fluid.ParamAttr(name=name + "_bn_offset"),
        moving_mean_name=name + "_bn_mean",
        moving_variance_name=name + "_bn_variance",
    )


def inception_b(fluid, x, name):
    """V4's module with 1x7 and 7x1 kernels, here 1x3 and 3x1."""
    pool = fluid.layers.pool2d(input=x, pool_size=3, pool_padding=1, pool_type="avg", exclusive=False)
    c1 = conv_bn_layer(fluid, pool, 4, 1, name=name + "_1x1")
    c2 = conv_bn_layer(fluid, x, 8, 1, name=name + "_branch2_1x1")
    c3 = conv_bn_layer(fluid, x, 4, 1, name=name + "_branch3_1x1")
    c3 = conv_bn_layer(fluid, c3, 6, (1, 3), padding=(0, 1), name=name + "_branch3_1x3")
    c3 = conv_bn_layer(fluid, c3, 6, (3, 1), padding=(1, 0), name=name + "_branch3_3x1")
    return fluid.layers.concat([c1, c2, c3], axis=1)


def inception_v4(fluid, image):
    conv = conv_bn_layer(fluid, image, 6, 3, stride=2, name="conv1_3x3_s2")
    conv = conv_bn_layer(fluid, conv, 8, 3, padding=1, name="conv2_3x3_s1")
    pool = fluid.layers.pool2d(input=conv, pool_size=3, pool_stride=2, pool_type="max")
    stem = fluid.layers.concat([pool, conv_bn_layer(fluid, conv, 8, 3, stride=2, name="inception_stem1")], axis=1)
    net = inception_b(fluid, inception_b(fluid, stem, "inception_b1"), "inception_b2")
    pool = fluid.layers.pool2d(input=net, pool_size=8, pool_type="avg", global_pooling=True)
    drop = fluid.layers.dropout(x=pool, dropout_prob=0.0)
    return fluid.layers.fc(input=drop, size=CLASSES, act="softmax", name="final_fc"), []


def build(fluid, variant):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    out, extra = (googlenet if variant == "googlenet" else inception_v4)(fluid, image)

    def cost(prediction):
        return fluid.layers.mean(fluid.layers.cross_entropy(input=prediction, label=label))

    loss = cost(out)
    for prediction in extra:
        loss = loss + 0.3 * cost(prediction)
    top1 = fluid.layers.accuracy(out, label, k=1)

    def train():
        fluid.optimizer.MomentumOptimizer(
            learning_rate=0.01, momentum=0.9, regularization=fluid.regularizer.L2DecayRegularizer(2e-4)
        ).minimize(loss)

    return Model(loss, repeat(data, 5), [out, top1], train)
