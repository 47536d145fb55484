"""DeepLabv3+: separable convolutions, atrous spatial pyramid, a decoder over shallow features (Chen et al., 2018).

The loss takes the pixels that count by gather, as label 255 means "none".
"""

import numpy as np

from program_model import Model, repeat

BATCH, SIZE, CLASSES, IGNORE = 2, 24, 5, 255


def data(rng):
    label = rng.randint(0, CLASSES, (BATCH, SIZE, SIZE))
    label[rng.uniform(0, 1, label.shape) < 0.1] = IGNORE
    return {"img": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"), "label": label.astype("int32")}


def conv(fluid, *args, **kwargs):
    """conv2d whose parameters are named after the scope, `<scope>weights`."""
    kwargs["param_attr"] = fluid.ParamAttr(
        name=kwargs.pop("scope") + "weights",
        regularizer=kwargs.pop("regularizer", None),
        initializer=fluid.initializer.TruncatedNormal(loc=0.0, scale=0.06),
    )
    kwargs.setdefault("bias_attr", False)
    return fluid.layers.conv2d(*args, **kwargs)


def bn_relu(fluid, input, scope):
    return fluid.layers.relu(
        fluid.layers.batch_norm(
            input,
            momentum=0.99,
            epsilon=1e-3,
            param_attr=fluid.ParamAttr(name=scope + "gamma"),
            bias_attr=fluid.ParamAttr(name=scope + "beta"),
            moving_mean_name=scope + "moving_mean",
            moving_variance_name=scope + "moving_variance",
        )
    )


def gn_relu(fluid, input, scope):
    return fluid.layers.relu(
        fluid.layers.group_norm(
            input,
            groups=2,
            epsilon=1e-5,
            param_attr=fluid.ParamAttr(name=scope + "gamma"),
            bias_attr=fluid.ParamAttr(name=scope + "beta"),
        )
    )


def separate_conv(fluid, input, channel, stride, filter_size, dilation, norm, scope):
    net = conv(
        fluid,
        input,
        input.shape[1],
        filter_size,
        stride,
        groups=input.shape[1],
        padding=(filter_size // 2) * dilation,
        dilation=dilation,
        use_cudnn=False,
        scope=scope + "depthwise/",
        regularizer=fluid.regularizer.L2DecayRegularizer(regularization_coeff=0.0),
    )
    net = norm(fluid, net, scope + "depthwise/BatchNorm/")
    net = conv(fluid, net, channel, 1, 1, groups=1, padding=0, scope=scope + "pointwise/")
    return norm(fluid, net, scope + "pointwise/BatchNorm/")


def xception_block(fluid, input, channels, stride, scope, skip):
    net = separate_conv(fluid, input, channels, 1, 3, 1, bn_relu, scope + "separable_conv1/")
    shallow = separate_conv(fluid, net, channels, 1, 3, 1, bn_relu, scope + "separable_conv2/")
    net = separate_conv(fluid, shallow, channels, stride, 3, 1, bn_relu, scope + "separable_conv3/")
    if skip:
        short = conv(fluid, input, channels, 1, stride, padding=0, scope=scope + "shortcut/")
        net = fluid.layers.elementwise_add(net, bn_relu(fluid, short, scope + "shortcut/BatchNorm/"))
    return net, shallow


def aspp(fluid, input, channel):
    layers = fluid.layers
    pooled = layers.reduce_mean(input, [2, 3], keep_dim=True)
    pooled = bn_relu(fluid, conv(fluid, pooled, channel, 1, 1, padding=0, scope="image_pooling/"), "image_pooling/bn/")
    pooled = layers.resize_bilinear(pooled, input.shape[2:])
    aspp0 = bn_relu(fluid, conv(fluid, input, channel, 1, 1, padding=0, scope="aspp0/"), "aspp0/bn/")
    branches = [pooled, aspp0]
    for i, dilation in enumerate((2, 3)):
        branches.append(separate_conv(fluid, input, channel, 1, 3, dilation, gn_relu, "aspp%d/" % (i + 1)))
    net = layers.concat(branches, axis=1)
    net = bn_relu(fluid, conv(fluid, net, channel, 1, 1, padding=0, scope="concat/"), "concat/bn/")
    return layers.dropout(net, 0.0)


def build(fluid):
    layers = fluid.layers
    img = layers.data(shape=[3, SIZE, SIZE], dtype="float32", name="img")
    label = layers.data(shape=[SIZE, SIZE], dtype="int32", name="label")
    stem = bn_relu(fluid, conv(fluid, img, 6, 3, stride=2, padding=1, scope="entry_flow/conv1/"), "entry_flow/bn/")
    net, shallow = xception_block(fluid, stem, 8, 2, "entry_flow/block1/", skip=True)
    net, _ = xception_block(fluid, net, 8, 1, "exit_flow/block1/", skip=False)
    net = aspp(fluid, net, 8)
    shallow = bn_relu(fluid, conv(fluid, shallow, 4, 1, 1, padding=0, scope="decoder/skip/"), "decoder/skip/bn/")
    net = layers.concat([layers.resize_bilinear(net, shallow.shape[2:]), shallow], axis=1)
    net = separate_conv(fluid, net, 8, 1, 3, 1, gn_relu, "decoder/separable_conv1/")
    bias_attr = fluid.ParamAttr(
        name="logit/biases",
        regularizer=fluid.regularizer.L2DecayRegularizer(regularization_coeff=0.0),
        initializer=fluid.initializer.ConstantInitializer(value=0.0),
    )
    logit = conv(fluid, net, CLASSES, 1, 1, padding=0, bias_attr=bias_attr, scope="logit/")
    logit = layers.resize_bilinear(logit, img.shape[2:])

    flat = layers.reshape(layers.transpose(logit, [0, 2, 3, 1]), [-1, CLASSES])
    label = layers.reshape(label, [-1, 1])
    label = layers.cast(label, "int32")
    label_nignore = layers.cast(label < CLASSES, "float32")
    label = layers.elementwise_min(label, layers.assign(np.array([CLASSES - 1], dtype=np.int32)))
    label_nignore.stop_gradient, label.stop_gradient = True, True
    loss = layers.softmax_with_cross_entropy(
        flat, layers.cast(label, "int64"), ignore_index=IGNORE, numeric_stable_mode=True
    )
    loss = loss * label_nignore
    loss_mean = layers.mean(loss) / layers.mean(label_nignore)
    pred = layers.cast(layers.argmax(logit, axis=1), "int32")
    miou, wrong, correct = layers.mean_iou(layers.reshape(pred, [-1, 1]), label, CLASSES)

    def train():
        schedule = layers.polynomial_decay(0.01, 10, end_learning_rate=0.0, power=0.9)
        fluid.optimizer.Momentum(
            schedule,
            momentum=0.9,
            regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=4e-5),
        ).minimize(loss_mean)

    return Model(loss_mean, repeat(data, 5), [miou, wrong, correct], train)
