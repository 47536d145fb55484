"""SE-ResNeXt: grouped bottlenecks whose channels are weighted by squeeze and excitation (Hu et al., 2017)."""

import math

from program_model import Model, repeat

BATCH, SIZE, CLASSES, CARDINALITY, REDUCTION = 4, 24, 10, 4, 4
DEPTH, WIDTHS = (1, 1, 1), (8, 8, 16)


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_bn_layer(fluid, input, num_filters, filter_size, stride=1, groups=1, act=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=(filter_size - 1) // 2,
        groups=groups,
        act=None,
        bias_attr=False,
    )
    return fluid.layers.batch_norm(input=conv, act=act)


def squeeze_excitation(fluid, input, num_channels, reduction_ratio):
    pool = fluid.layers.pool2d(input=input, pool_size=0, pool_type="avg", global_pooling=True, use_cudnn=False)
    stdv = 1.0 / math.sqrt(pool.shape[1] * 1.0)
    squeeze = fluid.layers.fc(
        input=pool,
        size=num_channels // reduction_ratio,
        act="relu",
        param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-stdv, stdv)),
    )
    stdv = 1.0 / math.sqrt(squeeze.shape[1] * 1.0)
    excitation = fluid.layers.fc(
        input=squeeze,
        size=num_channels,
        act="sigmoid",
        param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-stdv, stdv)),
    )
    return fluid.layers.elementwise_mul(x=input, y=excitation, axis=0)


def shortcut(fluid, input, ch_out, stride):
    if input.shape[1] != ch_out or stride != 1:
        return conv_bn_layer(fluid, input, ch_out, 1 if stride == 1 else 3, stride)
    return input


def bottleneck_block(fluid, input, num_filters, stride):
    conv0 = conv_bn_layer(fluid, input, num_filters, 1, act="relu")
    conv1 = conv_bn_layer(fluid, conv0, num_filters, 3, stride=stride, groups=CARDINALITY, act="relu")
    conv2 = conv_bn_layer(fluid, conv1, num_filters * 2, 1, act=None)
    scale = squeeze_excitation(fluid, conv2, num_channels=num_filters * 2, reduction_ratio=REDUCTION)
    short = shortcut(fluid, input, num_filters * 2, stride)
    return fluid.layers.elementwise_add(x=short, y=scale, act="relu")


def net(fluid, input):
    conv = conv_bn_layer(fluid, input, num_filters=8, filter_size=7, stride=2, act="relu")
    conv = fluid.layers.pool2d(input=conv, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max", use_cudnn=False)
    for block, depth in enumerate(DEPTH):
        for i in range(depth):
            conv = bottleneck_block(fluid, conv, WIDTHS[block], 2 if i == 0 and block == 1 else 1)
    pool = fluid.layers.pool2d(input=conv, pool_size=7, pool_type="avg", global_pooling=True, use_cudnn=False)
    drop = fluid.layers.dropout(x=pool, dropout_prob=0.0, seed=None)
    return fluid.layers.fc(input=drop, size=CLASSES, act="softmax")


def build(fluid):
    image = fluid.layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    out = net(fluid, image)
    avg_cost = fluid.layers.mean(x=fluid.layers.cross_entropy(input=out, label=label))
    acc = fluid.layers.accuracy(input=out, label=label, k=5)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data, 5)

    def train():
        fluid.optimizer.Momentum(
            learning_rate=fluid.layers.piecewise_decay(boundaries=[2, 4], values=[0.02, 0.01, 0.005]),
            momentum=0.9,
            regularization=fluid.regularizer.L2Decay(1.2e-4),
        ).minimize(avg_cost)

    return Model(avg_cost, feeds, [out, acc], train, test=(test_program, feeds[0], [out, avg_cost]))
