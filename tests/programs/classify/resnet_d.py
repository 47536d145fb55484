"""ResNet-D: a stem of three 3x3 convolutions, shortcuts that average before they project (He et al., 2018, bag of tricks).

The way with mixup: two labels weighted by a fed coefficient.
"""

import numpy as np

from program_model import Model, repeat

BATCH, SIZE, CLASSES = 4, 32, 10
DEPTH, WIDTHS = (1, 2, 1), (4, 6, 8)


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "y_a": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
        "y_b": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
        "lam": np.full((BATCH, 1), rng.beta(0.5, 0.5), "float32"),
    }


def conv_bn_layer(fluid, input, num_filters, filter_size, stride=1, groups=1, act=None, name=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=(filter_size - 1) // 2,
        groups=groups,
        act=None,
        param_attr=fluid.ParamAttr(name=name + "_weights"),
        bias_attr=False,
    )
    bn_name = "bn_" + name if name == "conv1" else "bn" + name[3:]
    return fluid.layers.batch_norm(
        input=conv,
        act=act,
        param_attr=fluid.ParamAttr(name=bn_name + "_scale"),
        bias_attr=fluid.ParamAttr(bn_name + "_offset"),
        moving_mean_name=bn_name + "_mean",
        moving_variance_name=bn_name + "_variance",
    )


def shortcut(fluid, input, ch_out, stride, name, first):
    if input.shape[1] == ch_out and stride == 1:
        return input
    if first:
        return conv_bn_layer(fluid, input, ch_out, 1, stride, name=name)
    pooled = fluid.layers.pool2d(
        input=input, pool_size=2, pool_stride=2, pool_padding=0, pool_type="avg", ceil_mode=True
    )
    return conv_bn_layer(fluid, pooled, ch_out, 1, 1, name=name)


def bottleneck_block(fluid, input, num_filters, stride, name, first):
    conv0 = conv_bn_layer(fluid, input, num_filters, 1, act="relu", name=name + "_branch2a")
    conv1 = conv_bn_layer(fluid, conv0, num_filters, 3, stride=stride, act="relu", name=name + "_branch2b")
    conv2 = conv_bn_layer(fluid, conv1, num_filters * 4, 1, act=None, name=name + "_branch2c")
    short = shortcut(fluid, input, num_filters * 4, stride, name=name + "_branch1", first=first)
    return fluid.layers.elementwise_add(x=short, y=conv2, act="relu", name=name + ".add.output.5")


def net(fluid, input):
    conv = conv_bn_layer(fluid, input, 4, 3, stride=2, act="relu", name="conv1_1")
    conv = conv_bn_layer(fluid, conv, 4, 3, act="relu", name="conv1_2")
    conv = conv_bn_layer(fluid, conv, 8, 3, act="relu", name="conv1_3")
    conv = fluid.layers.pool2d(input=conv, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max")
    for block, depth in enumerate(DEPTH):
        for i in range(depth):
            conv = bottleneck_block(
                fluid,
                conv,
                num_filters=WIDTHS[block],
                stride=2 if i == 0 and block != 0 else 1,
                name="res%d%s" % (block + 2, chr(97 + i)),
                first=block == 0 and i == 0,
            )
    pool = fluid.layers.pool2d(input=conv, pool_type="avg", global_pooling=True)
    stdv = 1.0 / float(pool.shape[1]) ** 0.5
    return fluid.layers.fc(
        input=pool,
        size=CLASSES,
        param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-stdv, stdv)),
    )


def build(fluid):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    y_a = layers.data(name="y_a", shape=[1], dtype="int64")
    y_b = layers.data(name="y_b", shape=[1], dtype="int64")
    lam = layers.data(name="lam", shape=[1], dtype="float32")
    out = net(fluid, image)

    def smoothed(label):
        one_hot = layers.one_hot(input=label, depth=CLASSES)
        soft = layers.label_smooth(label=one_hot, epsilon=0.1, dtype="float32")
        return layers.softmax_with_cross_entropy(out, soft, soft_label=True)

    loss_a, loss_b = layers.mean(x=lam * smoothed(y_a)), layers.mean(x=(1 - lam) * smoothed(y_b))
    loss = loss_a + loss_b

    def train():
        schedule = layers.linear_lr_warmup(
            layers.piecewise_decay(boundaries=[3, 4], values=[0.01, 0.005, 0.002]), 2, 0.0, 0.01
        )
        fluid.optimizer.Momentum(
            learning_rate=schedule, momentum=0.9, regularization=fluid.regularizer.L2Decay(1e-4)
        ).minimize(loss)

    return Model(loss, repeat(data, 5), [layers.softmax(out, use_cudnn=False)], train)
