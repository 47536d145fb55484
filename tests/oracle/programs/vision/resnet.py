"""Residual blocks, a MobileNet block and squeeze-and-excitation, as image classifiers were written."""

from program_model import Model, repeat

VARIANTS = ("residual", "mobile", "se", "nhwc")


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (4, 3, 12, 12)).astype("float32"),
        "label": rng.randint(0, 4, (4, 1)).astype("int64"),
    }


def conv_bn(fluid, x, filters, size, stride=1, groups=1, act="relu", name=None, layout="NCHW", use_cudnn=True):
    conv = fluid.layers.conv2d(
        input=x,
        num_filters=filters,
        filter_size=size,
        stride=stride,
        padding=(size - 1) // 2,
        groups=groups,
        act=None,
        use_cudnn=use_cudnn,
        param_attr=fluid.ParamAttr(name=name + "_weights", initializer=fluid.initializer.MSRA()),
        bias_attr=False,
        data_format=layout,
    )
    bn = "bn_" + name
    return fluid.layers.batch_norm(
        input=conv,
        act=act,
        param_attr=fluid.ParamAttr(name=bn + "_scale"),
        bias_attr=fluid.ParamAttr(bn + "_offset"),
        moving_mean_name=bn + "_mean",
        moving_variance_name=bn + "_variance",
        data_layout=layout,
    )


def residual(fluid, x, layout="NCHW"):
    for k, stride in enumerate((1, 2)):
        name = "res%d" % k
        branch = conv_bn(fluid, x, 4, 3, stride, name=name + "_a", layout=layout)
        branch = conv_bn(fluid, branch, 8, 1, act=None, name=name + "_b", layout=layout)
        short = conv_bn(fluid, x, 8, 1, stride, act=None, name=name + "_s", layout=layout)
        x = fluid.layers.elementwise_add(x=short, y=branch, act="relu", name=name + ".add")
    return x


def mobile(fluid, x):
    wide = conv_bn(fluid, x, 8, 1, act="relu6", name="expand")
    deep = conv_bn(fluid, wide, 8, 3, 2, groups=8, act="relu6", name="depthwise", use_cudnn=False)
    return conv_bn(fluid, deep, 8, 1, act="hard_swish", name="project")


def se(fluid, x):
    x = conv_bn(fluid, x, 8, 3, groups=1, name="se")
    pool = fluid.layers.pool2d(input=x, pool_type="avg", global_pooling=True)
    squeeze = fluid.layers.fc(input=pool, size=2, act="relu")
    excitation = fluid.layers.fc(input=squeeze, size=8, act="sigmoid")
    return fluid.layers.elementwise_mul(x=x, y=excitation, axis=0)


def build(fluid, variant):
    image = fluid.layers.data("image", [3, 12, 12])
    label = fluid.layers.data("label", [1], dtype="int64")
    if variant == "nhwc":
        net = residual(fluid, fluid.layers.transpose(image, [0, 2, 3, 1]), "NHWC")
        net = fluid.layers.pool2d(net, pool_size=3, pool_stride=2, pool_type="max", pool_padding=1, data_format="NHWC")
    else:
        net = globals()[variant](fluid, image)
        net = fluid.layers.pool2d(net, pool_size=3, pool_stride=2, pool_type="max", pool_padding=1, ceil_mode=True)
    out = fluid.layers.fc(net, 4, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(out, label))
    test = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data)

    def train():
        rate = fluid.layers.piecewise_decay([5, 12], [0.02, 0.01, 0.005])
        fluid.optimizer.Momentum(rate, 0.9, regularization=fluid.regularizer.L2Decay(1e-3)).minimize(loss)

    return Model(loss, feeds, [out], train, test=(test, feeds[2], [out, loss]))
