"""Human pose: a residual trunk, transposed convolutions, one heat map a joint (Xiao et al., 2018, simple baselines)."""

from program_model import Model, repeat

BATCH, SIZE, JOINTS = 2, 32, 5


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "target": rng.uniform(0, 1, (BATCH, JOINTS, SIZE // 4, SIZE // 4)).astype("float32"),
        "target_weight": (rng.uniform(0, 1, (BATCH, JOINTS, 1)) > 0.3).astype("float32"),
    }


def conv_bn_layer(fluid, input, num_filters, filter_size, stride=1, act=None):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=(filter_size - 1) // 2,
        act=None,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(0.0, 0.01)),
        bias_attr=False,
    )
    return fluid.layers.batch_norm(input=conv, act=act, momentum=0.9)


def basic_block(fluid, input, width, stride):
    net = conv_bn_layer(fluid, conv_bn_layer(fluid, input, width, 3, stride, "relu"), width, 3)
    short = input if input.shape[1] == width and stride == 1 else conv_bn_layer(fluid, input, width, 1, stride)
    return fluid.layers.elementwise_add(x=short, y=net, act="relu")


def build(fluid):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    target = layers.data(name="target", shape=[JOINTS, SIZE // 4, SIZE // 4], dtype="float32")
    target_weight = layers.data(name="target_weight", shape=[JOINTS, 1], dtype="float32")
    net = conv_bn_layer(fluid, image, 6, 7, 2, "relu")
    net = layers.pool2d(input=net, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max")
    for width, stride in ((6, 1), (8, 2), (8, 2)):
        net = basic_block(fluid, net, width, stride)
    for _ in range(2):
        net = layers.conv2d_transpose(
            input=net,
            num_filters=8,
            filter_size=4,
            padding=1,
            stride=2,
            act=None,
            bias_attr=False,
            param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(0.0, 0.001)),
        )
        net = layers.batch_norm(input=net, act="relu", momentum=0.9)
    heat = layers.conv2d(
        input=net,
        num_filters=JOINTS,
        filter_size=1,
        padding=0,
        act=None,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(0.0, 0.001)),
    )
    heat_maps = layers.split(layers.reshape(heat, shape=(-1, JOINTS, heat.shape[2] * heat.shape[3])), JOINTS, dim=1)
    truths = layers.split(layers.reshape(target, shape=(-1, JOINTS, heat.shape[2] * heat.shape[3])), JOINTS, dim=1)
    weights = layers.split(target_weight, JOINTS, dim=1)
    loss = 0.0
    for found, truth, weight in zip(heat_maps, truths, weights):
        found, truth = layers.elementwise_mul(found, weight, axis=0), layers.elementwise_mul(truth, weight, axis=0)
        loss = loss + 0.5 * layers.reduce_mean(layers.square_error_cost(found, truth))
    loss = loss / JOINTS

    def train():
        schedule = layers.piecewise_decay(boundaries=[2, 4], values=[0.001, 0.0005, 0.0001])
        fluid.optimizer.Adam(learning_rate=schedule).minimize(loss)

    return Model(loss, repeat(data, 5), [layers.argmax(layers.reshape(heat, [0, 0, -1]), axis=-1)], train)
