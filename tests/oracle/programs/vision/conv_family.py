"""Grouped, depthwise, dilated and transposed convolutions; a dropout that drops nothing."""

from program_model import Model, repeat


def data(rng):
    return {
        "img": rng.uniform(-1, 1, (4, 4, 8, 8)).astype("float32"),
        "target": rng.uniform(-1, 1, (4, 4, 8, 8)).astype("float32"),
    }


def build(fluid):
    img = fluid.layers.data(name="img", shape=[4, 8, 8], dtype="float32")
    target = fluid.layers.data(name="target", shape=[4, 8, 8], dtype="float32")
    net = fluid.layers.conv2d(img, 8, 3, padding=1, groups=2, act="leaky_relu")
    net = fluid.layers.conv2d(net, 8, 3, padding=2, dilation=2, groups=8, use_cudnn=False, act="tanh")
    net = fluid.layers.dropout(net, dropout_prob=0.0)
    net = fluid.layers.conv2d(net, 6, [3, 1], stride=[2, 2], padding=[1, 0], bias_attr=False)
    net = fluid.layers.prelu(net, mode="channel")
    up = fluid.layers.conv2d_transpose(net, 4, filter_size=4, stride=2, padding=1, act="sigmoid")
    wide = fluid.layers.conv2d_transpose(net, 4, output_size=8, stride=2, groups=2)
    wide = fluid.layers.pool2d(wide, 3, "avg", pool_stride=1, pool_padding=1, exclusive=False)
    out = fluid.layers.elementwise_add(up, wide)
    loss = fluid.layers.reduce_mean(fluid.layers.square_error_cost(out, target))
    return Model(
        loss,
        repeat(data),
        [out, up],
        train=lambda: fluid.optimizer.Momentum(0.05, 0.9, use_nesterov=True).minimize(loss),
    )
