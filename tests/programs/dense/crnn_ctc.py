"""CRNN: convolutions, columns of the feature map as a sequence, GRUs both ways, CTC (Shi et al., 2015)."""

from program_model import Model, lengths, ragged_ids, repeat

BATCH, HEIGHT, LENGTH, CLASSES, HIDDEN = 3, 16, 32, 8, 6


def data(rng):
    label, lod = ragged_ids(rng, lengths(rng, BATCH, 1, 5), CLASSES)
    return {
        "pixel": rng.uniform(-1, 1, (BATCH, 1, HEIGHT, LENGTH)).astype("float32"),
        "label": (label.astype("int32"), lod),
    }


def conv_bn_pool(fluid, input, group, out_ch, act="relu", param=None, bias=None, pool=True):
    tmp = input
    for i in range(group):
        tmp = fluid.layers.conv2d(
            input=tmp, num_filters=out_ch[i], filter_size=3, padding=1, param_attr=param, act=None, use_cudnn=True
        )
        tmp = fluid.layers.batch_norm(input=tmp, act=act, param_attr=param, bias_attr=bias)
    if pool:
        tmp = fluid.layers.pool2d(
            input=tmp, pool_size=2, pool_type="max", pool_stride=2, use_cudnn=True, ceil_mode=True
        )
    return tmp


def encoder_net(fluid, images, gradient_clip=None):
    layers = fluid.layers
    regularizer = fluid.regularizer.L2Decay(0.0)
    bias = fluid.ParamAttr(regularizer=regularizer, initializer=fluid.initializer.Normal(0.0, 0.0))
    weight = fluid.ParamAttr(regularizer=regularizer, initializer=fluid.initializer.Normal(0.0, 0.02))
    bias_slow = fluid.ParamAttr(
        regularizer=regularizer, initializer=fluid.initializer.Normal(0.0, 0.0), learning_rate=2.0
    )
    tmp = conv_bn_pool(fluid, images, 2, [4, 4], bias=bias)
    tmp = conv_bn_pool(fluid, tmp, 1, [8], bias=bias, pool=False)
    sliced = layers.im2sequence(input=tmp, stride=[1, 1], filter_size=[tmp.shape[2], 1])
    fc_1 = layers.fc(input=sliced, size=HIDDEN * 3, param_attr=weight, bias_attr=bias_slow)
    fc_2 = layers.fc(input=sliced, size=HIDDEN * 3, param_attr=weight, bias_attr=bias_slow)
    forward = layers.dynamic_gru(
        input=fc_1, size=HIDDEN, param_attr=weight, bias_attr=bias, candidate_activation="relu"
    )
    backward = layers.dynamic_gru(
        input=fc_2, size=HIDDEN, is_reverse=True, param_attr=weight, bias_attr=bias, candidate_activation="relu"
    )
    return layers.fc(input=[forward, backward], size=CLASSES + 1, param_attr=weight, bias_attr=bias)


def build(fluid):
    layers = fluid.layers
    images = layers.data(name="pixel", shape=[1, HEIGHT, LENGTH], dtype="float32")
    label = layers.data(name="label", shape=[1], dtype="int32", lod_level=1)
    fc_out = encoder_net(fluid, images)
    cost = layers.warpctc(input=fc_out, label=label, blank=CLASSES, norm_by_times=True)
    sum_cost = layers.reduce_sum(cost)
    decoded = layers.ctc_greedy_decoder(input=fc_out, blank=CLASSES)
    distance, sequences = layers.edit_distance(input=decoded, label=layers.cast(label, "int64"))

    def train():
        fluid.optimizer.Momentum(learning_rate=0.005, momentum=0.9).minimize(sum_cost)

    return Model(sum_cost, repeat(data, 5), [fc_out, distance, sequences], train)
