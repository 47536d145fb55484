"""TSN: segments of a video share a 2-D network; their scores are averaged (Wang et al., 2016). TSM shifts channels in time."""

from program_model import Model, repeat

VARIANTS = ("tsn", "tsm")
BATCH, SEGMENTS, SIZE, CLASSES = 2, 4, 16, 6


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, SEGMENTS, 3, SIZE, SIZE)).astype("float32"),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def conv_bn_layer(fluid, input, num_filters, filter_size, stride=1, act=None, name=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=(filter_size - 1) // 2,
        act=None,
        param_attr=fluid.param_attr.ParamAttr(name=name + "_weights"),
        bias_attr=False,
    )
    return fluid.layers.batch_norm(
        input=conv,
        act=act,
        param_attr=fluid.param_attr.ParamAttr(name=name + "_scale"),
        bias_attr=fluid.param_attr.ParamAttr(name=name + "_offset"),
        moving_mean_name=name + "_mean",
        moving_variance_name=name + "_variance",
    )


def bottleneck(fluid, input, width, stride, shift, name):
    net = fluid.layers.temporal_shift(input, SEGMENTS, 0.25) if shift else input
    net = conv_bn_layer(fluid, net, width, 1, act="relu", name=name + "_branch2a")
    net = conv_bn_layer(fluid, net, width, 3, stride, act="relu", name=name + "_branch2b")
    net = conv_bn_layer(fluid, net, width * 2, 1, name=name + "_branch2c")
    short = conv_bn_layer(fluid, input, width * 2, 1, stride, name=name + "_branch1")
    return fluid.layers.elementwise_add(x=short, y=net, act="relu")


def build(fluid, variant):
    layers = fluid.layers
    image = layers.data(name="image", shape=[SEGMENTS, 3, SIZE, SIZE], dtype="float32")
    label = layers.data(name="label", shape=[1], dtype="int64")
    net = layers.reshape(x=image, shape=[-1, 3, SIZE, SIZE])
    net = conv_bn_layer(fluid, net, 6, 3, stride=2, act="relu", name="conv1")
    for i, stride in enumerate((1, 2)):
        net = bottleneck(fluid, net, 4 * (i + 1), stride, variant == "tsm", "res%da" % (i + 2))
    pool = layers.pool2d(input=net, pool_size=7, pool_type="avg", global_pooling=True)
    dropped = layers.dropout(x=pool, dropout_prob=0.0, dropout_implementation="upscale_in_train")
    feature = layers.reshape(x=dropped, shape=[-1, SEGMENTS, pool.shape[1]])
    mean = layers.reduce_mean(feature, dim=1)
    out = layers.fc(
        input=mean,
        size=CLASSES,
        act="softmax",
        param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-0.3, 0.3)),
        bias_attr=fluid.param_attr.ParamAttr(learning_rate=2.0, regularizer=fluid.regularizer.L2Decay(0.0)),
    )
    loss = layers.mean(layers.cross_entropy(input=out, label=label, ignore_index=-1))
    top1 = layers.accuracy(input=out, label=label, k=1)

    def train():
        fluid.optimizer.Momentum(
            learning_rate=layers.piecewise_decay(boundaries=[2, 4], values=[0.01, 0.005, 0.001]),
            momentum=0.9,
            regularization=fluid.regularizer.L2Decay(1e-4),
        ).minimize(loss)

    return Model(loss, repeat(data, 5), [out, top1], train)
