"""Detectors small enough for a test: SSD, YOLOv3, and heads over regions of interest."""

import numpy as np

from program_model import Model, repeat

VARIANTS = ("ssd", "yolo", "rois")
SIZE = 32


def boxes(rng, count):
    low = rng.uniform(0.0, 0.6, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.15, 0.4, (count, 2))], 1).astype("float32")


def data(rng):
    counts = [2, 1, 3]
    centre = rng.uniform(0.2, 0.8, (3, 4, 4)).astype("float32") * np.array([1, 1, 0.5, 0.5], "float32")
    centre[:, 3] = 0
    return {
        "image": rng.uniform(-1, 1, (3, 3, SIZE, SIZE)).astype("float32"),
        "gt_box": (boxes(rng, 6), [counts]),
        "gt_label": (rng.randint(1, 4, (6, 1)).astype("int32"), [counts]),
        "yolo_box": centre,
        "yolo_label": rng.randint(0, 2, (3, 4)).astype("int32"),
        "size": np.full((3, 2), SIZE, "int32"),
        "rois": (boxes(rng, 6) * SIZE, [counts]),
        "target": rng.randint(0, 3, (6, 1)).astype("int64"),
    }


def backbone(fluid, image):
    net = fluid.layers.conv2d(image, 6, 3, stride=2, padding=1, act="relu")
    net = fluid.layers.conv2d(net, 8, 3, stride=2, padding=1, act="relu")
    return net, fluid.layers.conv2d(net, 8, 3, stride=2, padding=1, act="relu")


def ssd(fluid, image):
    layers = fluid.layers
    gt_box = layers.data("gt_box", [4], lod_level=1)
    gt_label = layers.data("gt_label", [1], dtype="int32", lod_level=1)
    fine, coarse = backbone(fluid, image)
    last = layers.conv2d(coarse, 8, 3, stride=2, padding=1, act="relu")
    locs, confs, box, box_var = layers.multi_box_head(
        inputs=[fine, coarse, last],
        image=image,
        num_classes=4,
        min_sizes=[6.0, 10.0, 16.0],
        max_sizes=[[], 14.0, 24.0],
        aspect_ratios=[[2.0], [2.0], [2.0, 3.0]],
        base_size=SIZE,
        offset=0.5,
        flip=True,
    )
    test = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test):
        found = layers.detection_output(locs, confs, box, box_var, nms_threshold=0.45, score_threshold=0.2)
    loss = layers.reduce_sum(layers.ssd_loss(locs, confs, gt_box, gt_label, box, box_var))
    return loss, [locs, confs, box, box_var], (test, [found]), ("image", "gt_box", "gt_label")


def yolo(fluid, image):
    layers = fluid.layers
    gt_box = layers.data("yolo_box", [4, 4])
    gt_label = layers.data("yolo_label", [4], dtype="int32")
    size = layers.data("size", [2], dtype="int32")
    anchors = [4, 5, 8, 7, 12, 14]
    _, coarse = backbone(fluid, image)
    out = layers.conv2d(coarse, 21, 1)
    loss = layers.mean(
        layers.yolov3_loss(out, gt_box, gt_label, anchors, [0, 1, 2], 2, ignore_thresh=0.5, downsample_ratio=8)
    )
    box, score = layers.yolo_box(out, size, anchors, 2, conf_thresh=0.01, downsample_ratio=8)
    found = layers.multiclass_nms(
        box, layers.transpose(score, [0, 2, 1]), 0.3, 20, 6, nms_threshold=0.4, background_label=-1
    )
    return loss, [out, box, score, found], None, ("image", "yolo_box", "yolo_label", "size")


def rois(fluid, image):
    layers = fluid.layers
    region = layers.data("rois", [4], lod_level=1)
    target = layers.data("target", [1], dtype="int64")
    fine, _ = backbone(fluid, image)
    parts = [
        layers.roi_align(fine, region, 2, 2, spatial_scale=0.25, sampling_ratio=2),
        layers.roi_pool(fine, region, 2, 2, spatial_scale=0.25),
        layers.psroi_pool(fine, region, 2, 0.25, 2, 2),
    ]
    feature = layers.concat([layers.flatten(p) for p in parts], axis=1)
    logits = layers.fc(feature, 3)
    loss = layers.mean(layers.softmax_with_cross_entropy(logits, target)) + 0.1 * layers.reduce_mean(
        layers.smooth_l1(layers.fc(feature, 4), region * 0.05)
    )
    anchors, variances = layers.anchor_generator(fine, [8.0, 16.0], [0.5, 1.0], stride=[4.0, 4.0])
    return (
        loss,
        parts + [anchors, variances, layers.iou_similarity(region, layers.reshape(anchors, [-1, 4]))],
        None,
        ("image", "rois", "target"),
    )


def build(fluid, variant):
    image = fluid.layers.data("image", [3, SIZE, SIZE])
    loss, fetch, test, names = globals()[variant](fluid, image)
    feeds = [{k: f[k] for k in names} for f in repeat(data)]
    if test is not None:
        test = (test[0], {"image": feeds[0]["image"]}, test[1])
    return Model(loss, feeds, fetch, train=lambda: fluid.optimizer.Momentum(0.002, 0.9).minimize(loss), test=test)
