"""RetinaNet: one stage, anchors of every place scored under the focal loss (Lin et al., 2017)."""

import numpy as np

from program_model import Model, repeat

BATCH, SIZE, CLASSES, WIDTH = 2, 64, 3, 6
STRIDES, SCALES, RATIOS = (8, 16), (1.0, 2.0 ** (1.0 / 3)), (0.5, 1.0, 2.0)


def data(rng):
    counts = [2, 1]
    low = rng.uniform(2, 30, (sum(counts), 2))
    box = np.concatenate([low, low + rng.uniform(20, 32, (sum(counts), 2))], 1).astype("float32")
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "gt_box": (box, [counts]),
        "gt_label": (rng.randint(1, CLASSES + 1, (sum(counts), 1)).astype("int32"), [counts]),
        "is_crowd": (np.zeros((sum(counts), 1), "int32"), [counts]),
        "im_info": np.array([[SIZE, SIZE, 1.0]] * BATCH, "float32"),
    }


def conv(fluid, x, width, stride, name, act="relu", bias=0.0):
    return fluid.layers.conv2d(
        x,
        width,
        3,
        stride=stride,
        padding=1,
        act=act,
        name=name,
        param_attr=fluid.ParamAttr(name=name + "_w", initializer=fluid.initializer.Normal(loc=0.0, scale=0.01)),
        bias_attr=fluid.ParamAttr(
            name=name + "_b",
            initializer=fluid.initializer.Constant(bias),
            learning_rate=2.0,
            regularizer=fluid.regularizer.L2Decay(0.0),
        ),
    )


def features(fluid, image):
    net = conv(fluid, conv(fluid, image, 4, 2, "conv1"), WIDTH, 2, "conv2")
    maps = []
    for i in range(len(STRIDES)):
        net = conv(fluid, net, WIDTH, 2, "level%d" % i)
        maps.append(net)
    return maps


def heads(fluid, maps):
    """Rows of class logits, box deltas and anchors, one list a level; the heads are shared by all levels."""
    layers = fluid.layers
    count = len(SCALES) * len(RATIOS)
    prior = -np.log((1 - 0.01) / 0.01)
    logits, deltas, anchors, variances = [], [], [], []
    for feature, stride in zip(maps, STRIDES):
        cls = conv(fluid, feature, WIDTH, 1, "retnet_cls_conv")
        cls = conv(fluid, cls, count * CLASSES, 1, "retnet_cls_pred", act=None, bias=float(prior))
        box = conv(fluid, feature, WIDTH, 1, "retnet_bbox_conv")
        box = conv(fluid, box, count * 4, 1, "retnet_bbox_pred", act=None)
        anchor, variance = layers.anchor_generator(
            input=feature,
            anchor_sizes=[stride * 3.0 * scale for scale in SCALES],
            aspect_ratios=list(RATIOS),
            variance=[1.0, 1.0, 1.0, 1.0],
            stride=[float(stride), float(stride)],
        )
        logits.append(layers.reshape(layers.transpose(cls, perm=[0, 2, 3, 1]), shape=(0, -1, CLASSES)))
        deltas.append(layers.reshape(layers.transpose(box, perm=[0, 2, 3, 1]), shape=(0, -1, 4)))
        anchors.append(layers.reshape(anchor, shape=(-1, 4)))
        variances.append(layers.reshape(variance, shape=(-1, 4)))
    return logits, deltas, anchors, variances


def build(fluid):
    layers = fluid.layers
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    gt_box = layers.data(name="gt_box", shape=[4], dtype="float32", lod_level=1)
    gt_label = layers.data(name="gt_label", shape=[1], dtype="int32", lod_level=1)
    is_crowd = layers.data(name="is_crowd", shape=[1], dtype="int32", lod_level=1)
    im_info = layers.data(name="im_info", shape=[3], dtype="float32")
    logits, deltas, anchors, variances = heads(fluid, features(fluid, image))
    test_program = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test_program):
        found = layers.retinanet_detection_output(
            bboxes=deltas,
            scores=[layers.sigmoid(x) for x in logits],
            anchors=anchors,
            im_info=im_info,
            score_threshold=0.005,
            nms_top_k=30,
            keep_top_k=8,
            nms_threshold=0.5,
        )
    score_pred, loc_pred, score_tgt, loc_tgt, weight, fg_num = layers.retinanet_target_assign(
        bbox_pred=layers.concat(deltas, axis=1),
        cls_logits=layers.concat(logits, axis=1),
        anchor_box=layers.concat(anchors, axis=0),
        anchor_var=layers.concat(variances, axis=0),
        gt_boxes=gt_box,
        gt_labels=gt_label,
        is_crowd=is_crowd,
        im_info=im_info,
        num_classes=CLASSES,
        positive_overlap=0.5,
        negative_overlap=0.4,
    )
    fg_num = layers.reduce_sum(fg_num, name="fg_num")
    fg = layers.cast(fg_num, dtype="float32")
    loss_cls = layers.reduce_sum(
        layers.sigmoid_focal_loss(x=score_pred, label=score_tgt, fg_num=fg_num, gamma=2.0, alpha=0.25), name="loss_cls"
    )
    loss_bbox = layers.smooth_l1(x=loc_pred, y=loc_tgt, sigma=3.0, inside_weight=weight, outside_weight=weight)
    loss_bbox = layers.reduce_sum(loss_bbox) / fg
    loss = loss_cls + loss_bbox
    feeds = repeat(data, 5)

    def train():
        fluid.optimizer.Momentum(
            learning_rate=0.01, momentum=0.9, regularization=fluid.regularizer.L2Decay(1e-4)
        ).minimize(loss)

    test = (test_program, {k: feeds[0][k] for k in ("image", "im_info")}, [found])
    return Model(loss, feeds, [loss_cls, loss_bbox, fg_num, score_tgt], train, test)
