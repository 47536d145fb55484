"""YOLOv3: a Darknet of residual blocks, three maps joined upwards, a loss on each (Redmon and Farhadi, 2018)."""

import numpy as np

from program_model import Model, repeat

BATCH, SIZE, CLASSES, BOXES = 2, 64, 3, 4
ANCHORS = [4, 5, 8, 7, 10, 12, 14, 10, 18, 20, 24, 22, 30, 34, 40, 38, 56, 50]
MASKS = [[6, 7, 8], [3, 4, 5], [0, 1, 2]]


def data(rng):
    box = rng.uniform(0.2, 0.8, (BATCH, BOXES, 4)).astype("float32") * np.array([1, 1, 0.5, 0.5], "float32")
    box[:, -1] = 0
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "gt_box": box,
        "gt_label": rng.randint(0, CLASSES, (BATCH, BOXES)).astype("int32"),
        "gt_score": rng.uniform(0.5, 1, (BATCH, BOXES)).astype("float32"),
    }


def conv_bn_layer(fluid, input, ch_out, filter_size, stride, padding, name):
    conv = fluid.layers.conv2d(
        input=input,
        num_filters=ch_out,
        filter_size=filter_size,
        stride=stride,
        padding=padding,
        act=None,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(0.0, 0.02), name=name + ".conv.weights"),
        bias_attr=False,
    )
    bn_name = name + ".bn"
    out = fluid.layers.batch_norm(
        input=conv,
        act=None,
        param_attr=fluid.ParamAttr(
            initializer=fluid.initializer.Constant(1.0),
            regularizer=fluid.regularizer.L2Decay(0.0),
            name=bn_name + ".scale",
        ),
        bias_attr=fluid.ParamAttr(
            initializer=fluid.initializer.Constant(0.0),
            regularizer=fluid.regularizer.L2Decay(0.0),
            name=bn_name + ".offset",
        ),
        moving_mean_name=bn_name + ".mean",
        moving_variance_name=bn_name + ".var",
    )
    return fluid.layers.leaky_relu(x=out, alpha=0.1)


def basicblock(fluid, input, ch_out, name):
    conv1 = conv_bn_layer(fluid, input, ch_out, 1, 1, 0, name + ".0")
    conv2 = conv_bn_layer(fluid, conv1, ch_out * 2, 3, 1, 1, name + ".1")
    return fluid.layers.elementwise_add(x=input, y=conv2, act=None)


def darknet(fluid, image):
    """The maps at strides 8, 16 and 32."""
    net = conv_bn_layer(fluid, image, 4, 3, 2, 1, "yolo_input")
    net = conv_bn_layer(fluid, net, 4, 3, 2, 1, "yolo_input.downsample")
    maps = []
    for i, width in enumerate((4, 4, 6)):
        net = conv_bn_layer(fluid, net, width * 2, 3, 2, 1, "stage.%d.downsample" % i)
        net = basicblock(fluid, net, width, "stage.%d.0" % i)
        maps.append(net)
    return maps


def build(fluid):
    layers = fluid.layers
    image = fluid.data(name="image", shape=[None, 3, SIZE, SIZE], dtype="float32")
    gt_box = fluid.data(name="gt_box", shape=[None, BOXES, 4], dtype="float32")
    gt_label = fluid.data(name="gt_label", shape=[None, BOXES], dtype="int32")
    gt_score = fluid.data(name="gt_score", shape=[None, BOXES], dtype="float32")
    losses, outputs, route = [], [], None
    for i, block in enumerate(reversed(darknet(fluid, image))):
        if i > 0:
            block = layers.concat(input=[route, block], axis=1)
        route = conv_bn_layer(fluid, block, 6, 1, 1, 0, "yolo_block.%d.route" % i)
        tip = conv_bn_layer(fluid, route, 12, 3, 1, 1, "yolo_block.%d.tip" % i)
        out = layers.conv2d(
            input=tip,
            num_filters=len(MASKS[i]) * (CLASSES + 5),
            filter_size=1,
            act=None,
            param_attr=fluid.ParamAttr(
                initializer=fluid.initializer.Normal(0.0, 0.02), name="yolo_output.%d.conv.weights" % i
            ),
            bias_attr=fluid.ParamAttr(
                initializer=fluid.initializer.Constant(0.0),
                regularizer=fluid.regularizer.L2Decay(0.0),
                name="yolo_output.%d.conv.bias" % i,
            ),
        )
        outputs.append(out)
        loss = layers.yolov3_loss(
            x=out,
            gt_box=gt_box,
            gt_label=gt_label,
            gt_score=gt_score,
            anchors=ANCHORS,
            anchor_mask=MASKS[i],
            class_num=CLASSES,
            ignore_thresh=0.7,
            downsample_ratio=32 // 2**i,
            use_label_smooth=i == 0,
        )
        losses.append(layers.reduce_mean(loss))
        if i < 2:
            route = conv_bn_layer(fluid, route, 6, 1, 1, 0, "yolo_transition.%d" % i)
            route = layers.resize_nearest(input=route, scale=2.0)
    total = layers.sum(losses)
    test_program = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test_program):
        im_shape = fluid.data(name="im_shape", shape=[None, 2], dtype="int32")
        boxes, scores = [], []
        for i, out in enumerate(outputs):
            anchors = [ANCHORS[2 * m + k] for m in MASKS[i] for k in (0, 1)]
            box, score = layers.yolo_box(
                x=out,
                img_size=im_shape,
                anchors=anchors,
                class_num=CLASSES,
                conf_thresh=0.01,
                downsample_ratio=32 // 2**i,
                name="yolo_box%d" % i,
            )
            boxes.append(box)
            scores.append(layers.transpose(score, perm=[0, 2, 1]))
        pred = layers.multiclass_nms(
            bboxes=layers.concat(boxes, axis=1),
            scores=layers.concat(scores, axis=2),
            score_threshold=0.2,
            nms_top_k=40,
            keep_top_k=10,
            nms_threshold=0.45,
            background_label=-1,
        )
    feeds = repeat(data, 5)
    test = (test_program, dict(feeds[0], im_shape=np.array([[SIZE, 48], [80, SIZE]], "int32")), [pred] + boxes)

    def train():
        schedule = layers.linear_lr_warmup(layers.piecewise_decay([3, 4], [0.001, 1e-4, 1e-5]), 2, 0.0, 0.001)
        fluid.optimizer.Momentum(
            learning_rate=schedule, momentum=0.9, regularization=fluid.regularizer.L2Decay(0.0005)
        ).minimize(total)

    return Model(total, feeds, losses, train, test)
