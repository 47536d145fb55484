"""ICNet: three resolutions cascaded, each with its own label map (Zhao et al., 2017)."""

from program_model import Model, repeat

BATCH, SIZE, CLASSES = 2, 32, 4
WEIGHTS = (0.16, 0.4, 1.0)


def data(rng):
    feed = {"image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32")}
    for name, ratio in (("sub1", 4), ("sub2", 8), ("sub4", 16)):
        side = SIZE // ratio
        feed["label_" + name] = rng.randint(0, CLASSES, (BATCH * side * side, 1)).astype("int32")
        kept = rng.permutation(BATCH * side * side)[: max(3, BATCH * side * side - 4)]
        feed["mask_" + name] = kept.reshape(-1, 1).astype("int32")
    return feed


def conv(fluid, input, k, c_o, stride=1, relu=False, padding=0, dilation=1, name=""):
    return fluid.layers.conv2d(
        input=input,
        num_filters=c_o,
        filter_size=k,
        stride=stride,
        padding=padding,
        dilation=dilation,
        act="relu" if relu else None,
        param_attr=fluid.ParamAttr(name=name + "_weights"),
        bias_attr=fluid.ParamAttr(name=name + "_biases"),
        name=name,
    )


def bn(fluid, input, relu=False, name=""):
    return fluid.layers.batch_norm(
        input,
        act="relu" if relu else None,
        name=name,
        param_attr=fluid.ParamAttr(name=name + "_gamma"),
        bias_attr=fluid.ParamAttr(name=name + "_beta"),
        moving_mean_name=name + "_mean",
        moving_variance_name=name + "_variance",
    )


def interp(fluid, input, scale):
    shape = [int(side * scale) for side in input.shape[2:]]
    return fluid.layers.resize_bilinear(input, out_shape=shape)


def bottleneck(fluid, input, width, dilation, name):
    net = bn(fluid, conv(fluid, input, 1, width // 2, name=name + "_1x1_reduce"), True, name + "_reduce_bn")
    net = conv(fluid, net, 3, width // 2, padding=dilation, dilation=dilation, name=name + "_3x3")
    net = bn(fluid, net, True, name + "_3x3_bn")
    net = bn(fluid, conv(fluid, net, 1, width, name=name + "_increase"), False, name + "_increase_bn")
    return fluid.layers.elementwise_add(input, net, act="relu")


def shared_branch(fluid, image):
    net = interp(fluid, image, 0.5)
    for i, (width, stride) in enumerate(((4, 2), (6, 1))):
        name = "conv1_%d" % (i + 1)
        net = bn(fluid, conv(fluid, net, 3, width, stride, padding=1, name=name), True, name + "_bn")
    return bottleneck(fluid, net, 6, 1, "conv2_1")


def pyramid(fluid, input):
    """The sum of averages over regions of several sizes."""
    side, total = input.shape[2], input
    for pool in (side, side // 2):
        pooled = fluid.layers.pool2d(input, pool_size=pool, pool_type="avg", pool_stride=pool)
        total = fluid.layers.elementwise_add(total, fluid.layers.resize_bilinear(pooled, out_shape=input.shape[2:]))
    return total


def fuse(fluid, coarse, fine, width, name):
    coarse = interp(fluid, coarse, 2.0)
    low = bn(fluid, conv(fluid, coarse, 3, width, padding=2, dilation=2, name=name + "_sub4"), False, name + "_sub4_bn")
    high = bn(fluid, conv(fluid, fine, 1, width, name=name + "_proj"), False, name + "_proj_bn")
    return coarse, fluid.layers.relu(fluid.layers.elementwise_add(low, high))


def build(fluid):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    shared = shared_branch(fluid, image)
    deep = pyramid(fluid, bottleneck(fluid, interp(fluid, shared, 0.5), 6, 2, "conv4_1"))
    coarse, middle = fuse(fluid, interp(fluid, deep, 0.5), interp(fluid, shared, 0.5), 6, "cascade1")
    fine = image
    for i, stride in enumerate((2, 2)):
        name = "conv3_sub1_%d" % (i + 1)
        fine = bn(fluid, conv(fluid, fine, 3, 4, stride, padding=1, name=name), True, name + "_bn")
    sub2, top = fuse(fluid, middle, fine, 6, "cascade2")
    outputs = [("sub4", coarse), ("sub2", sub2), ("sub1", top)]
    total, kept = 0.0, []
    for weight, (name, feature) in zip(WEIGHTS, outputs):
        logit = conv(fluid, feature, 1, CLASSES, name=name + "_out")
        side = SIZE // {"sub1": 4, "sub2": 8, "sub4": 16}[name]
        logit = layers.resize_bilinear(logit, out_shape=[side, side])
        flat = layers.reshape(layers.transpose(logit, [0, 2, 3, 1]), [-1, CLASSES])
        label = layers.data(name="label_" + name, shape=[1], dtype="int32")
        mask = layers.data(name="mask_" + name, shape=[1], dtype="int32")
        predict = layers.gather(flat, mask)
        picked = layers.gather(label, mask)
        cost = layers.softmax_with_cross_entropy(predict, layers.cast(picked, dtype="int64"))
        total = total + weight * layers.reduce_mean(cost)
        kept.append(predict)

    def train():
        schedule = layers.polynomial_decay(0.01, 20, power=0.9)
        fluid.optimizer.Momentum(
            schedule, momentum=0.9, regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-4)
        ).minimize(total)

    return Model(total, repeat(data, 5), kept, train)
