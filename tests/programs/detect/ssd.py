"""SSD over a small MobileNet: priors on several maps, matched by overlap, hard negatives mined (Liu et al., 2015)."""

import numpy as np

from program_model import Model, repeat

VARIANTS = ("mobilenet", "normalised")
BATCH, SIZE, CLASSES = 3, 32, 4


def boxes(rng, count):
    low = rng.uniform(0.0, 0.6, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.15, 0.4, (count, 2))], 1).astype("float32")


def data(rng):
    counts = [2, 1, 3]
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "gt_box": (boxes(rng, sum(counts)), [counts]),
        "gt_label": (rng.randint(1, CLASSES, (sum(counts), 1)).astype("int32"), [counts]),
    }


def conv_bn(fluid, input, filter_size, num_filters, stride, padding, num_groups=1, act="relu", use_cudnn=True):
    parameter_attr = fluid.ParamAttr(learning_rate=0.1, initializer=fluid.initializer.MSRA())
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=num_filters,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        groups=num_groups,
        act=None,
        use_cudnn=use_cudnn,
        param_attr=parameter_attr,
        bias_attr=False,
    )
    return fluid.layers.batch_norm(input=conv, act=act)


def depthwise_separable(fluid, input, num_filters, stride):
    channels = input.shape[1]
    depthwise = conv_bn(fluid, input, 3, channels, stride, 1, num_groups=channels, use_cudnn=False)
    return conv_bn(fluid, depthwise, 1, num_filters, 1, 0)


def extra_block(fluid, input, num_filters1, num_filters2):
    pointwise = conv_bn(fluid, input, 1, num_filters1, 1, 0)
    return conv_bn(fluid, pointwise, 3, num_filters2, 2, 1)


def build(fluid, variant):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    gt_box = layers.data(name="gt_box", shape=[4], dtype="float32", lod_level=1)
    gt_label = layers.data(name="gt_label", shape=[1], dtype="int32", lod_level=1)
    net = conv_bn(fluid, image, 3, 6, 2, 1)
    fine = depthwise_separable(fluid, net, 8, 2)
    if variant == "normalised":
        fine = layers.l2_normalize(fine, axis=1)
    middle = depthwise_separable(fluid, fine, 8, 2)
    coarse = extra_block(fluid, middle, 4, 8)
    sizes = (
        {"min_ratio": 20, "max_ratio": 90}
        if variant == "mobilenet"
        else {"min_sizes": [6.0, 12.0, 20.0], "max_sizes": [12.0, 20.0, 28.0], "steps": [8.0, 16.0, 32.0]}
    )
    locs, confs, box, box_var = layers.multi_box_head(
        inputs=[fine, middle, coarse],
        num_classes=CLASSES,
        image=image,
        aspect_ratios=[[2.0], [2.0, 3.0], [2.0, 3.0]],
        base_size=SIZE,
        offset=0.5,
        flip=True,
        clip=variant == "normalised",
        **sizes,
    )
    test_program = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test_program):
        found = layers.detection_output(locs, confs, box, box_var, nms_threshold=0.45, score_threshold=0.2)
    loss = layers.ssd_loss(locs, confs, gt_box, gt_label, box, box_var, neg_overlap=0.4)
    loss = layers.reduce_sum(loss)
    feeds = repeat(data, 5)

    def train():
        fluid.optimizer.RMSProp(
            learning_rate=layers.piecewise_decay([2, 4], [0.001, 0.0005, 0.00025]),
            regularization=fluid.regularizer.L2Decay(0.00005),
        ).minimize(loss)

    test = (test_program, {"image": feeds[0]["image"]}, [found])
    return Model(loss, feeds, [locs, confs, box, box_var], train, test)
