"""Two-stage detectors: Faster R-CNN (Ren et al., 2015), over a feature pyramid (Lin et al., 2016), with masks (He et al.,
2017). Sampling takes the first candidates instead of random ones."""

import numpy as np

from program_model import Model, repeat

VARIANTS = ("faster", "fpn", "mask")
BATCH, SIZE, CLASSES, HIDDEN, RESOLUTION = 2, 64, 3, 16, 6


def data(rng):
    counts = [2, 3]
    total = sum(counts)
    low = rng.uniform(2, 30, (total, 2))
    box = np.concatenate([low, low + rng.uniform(10, 32, (total, 2))], 1).astype("float32")
    corners = np.stack([box[:, [0, 1]], box[:, [2, 1]], box[:, [2, 3]], box[:, [0, 3]]], 1).reshape(-1, 2)
    corners = corners + rng.uniform(0, 3, corners.shape)
    return {
        "image": rng.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
        "gt_box": (box, [counts]),
        "gt_label": (rng.randint(1, CLASSES, (total, 1)).astype("int32"), [counts]),
        "is_crowd": (np.zeros((total, 1), "int32"), [counts]),
        "im_info": np.array([[SIZE, SIZE, 1.0]] * BATCH, "float32"),
        "gt_masks": (corners.astype("float32"), [counts, [1] * total, [4] * total]),
    }


class Detector(object):
    """The network; parameters are named, so the Program for inference shares them."""

    def __init__(self, fluid, variant, training):
        self.fluid, self.layers, self.variant, self.training = fluid, fluid.layers, variant, training

    def attr(self, name, scale=0.3):
        return self.fluid.ParamAttr(name=name, initializer=self.fluid.initializer.Normal(loc=0.0, scale=scale))

    def bias(self, name):
        return self.fluid.ParamAttr(name=name, learning_rate=2.0, regularizer=self.fluid.regularizer.L2Decay(0.0))

    def conv(self, x, width, size, stride=1, name=None, act="relu"):
        return self.layers.conv2d(
            x,
            width,
            size,
            stride=stride,
            padding=(size - 1) // 2,
            act=act,
            name=name,
            param_attr=self.attr(name + "_w"),
            bias_attr=self.bias(name + "_b"),
        )

    def fc(self, x, size, name, act=None):
        return self.layers.fc(
            x, size=size, act=act, name=name, param_attr=self.attr(name + "_w"), bias_attr=self.bias(name + "_b")
        )

    def body(self, image):
        """Maps at strides 8 and 16; without a pyramid only the finer one."""
        net = self.conv(image, 4, 3, 2, "conv1")
        net = self.layers.pool2d(net, pool_size=3, pool_stride=2, pool_padding=1, pool_type="max")
        fine = self.conv(net, 6, 3, 2, "res2")
        if self.variant != "fpn":
            return [fine]
        coarse = self.conv(self.conv(fine, 6, 3, 2, "res3"), 6, 1, 1, "fpn_inner_res3", act=None)
        side = self.conv(fine, 6, 1, 1, "fpn_inner_res2_lateral", act=None)
        shape = self.layers.cast(self.layers.shape(side), "int32")
        shape = self.layers.slice(shape, axes=[0], starts=[2], ends=[4])
        up = self.layers.resize_nearest(coarse, scale=2.0, actual_shape=shape)
        fine = self.layers.elementwise_add(x=up, y=side)
        return [self.conv(fine, 6, 3, 1, "fpn_res2", act=None), self.conv(coarse, 6, 3, 1, "fpn_res3", act=None)]

    def rpn(self, feature, level, im_info):
        """(scores, deltas, anchors, variances, proposals and their probabilities) of one map."""
        layers, stride = self.layers, 8.0 * 2**level
        rpn_conv = self.conv(feature, 6, 3, 1, "conv_rpn")
        sizes = [16.0 * 2**level] if self.variant == "fpn" else [12.0, 24.0]
        anchor, var = layers.anchor_generator(
            input=rpn_conv,
            anchor_sizes=sizes,
            aspect_ratios=[0.5, 1.0, 2.0],
            stride=[stride, stride],
            variance=[1.0, 1.0, 1.0, 1.0],
        )
        count = len(sizes) * 3
        score = self.conv(rpn_conv, count, 1, 1, "rpn_cls_logits", act=None)
        delta = self.conv(rpn_conv, count * 4, 1, 1, "rpn_bbox_pred", act=None)
        rois, probs = layers.generate_proposals(
            scores=layers.sigmoid(score),
            bbox_deltas=delta * 0.2,
            im_info=im_info,
            anchors=anchor,
            variances=var,
            pre_nms_top_n=60,
            post_nms_top_n=12,
            nms_thresh=0.7,
            min_size=2.0,
        )
        return score, delta, anchor, var, rois, probs

    def flat(self, outputs):
        """The maps' scores, deltas, anchors and variances, one row an anchor."""
        layers = self.layers

        def rows(value, width):
            return layers.reshape(layers.transpose(value, perm=[0, 2, 3, 1]), shape=(0, -1, width))

        score = [rows(o[0], 1) for o in outputs]
        delta = [rows(o[1], 4) for o in outputs]
        anchor = [layers.reshape(o[2], shape=(-1, 4)) for o in outputs]
        var = [layers.reshape(o[3], shape=(-1, 4)) for o in outputs]
        if len(outputs) == 1:
            return score[0], delta[0], anchor[0], var[0]
        return tuple(layers.concat(x, axis=a) for x, a in ((score, 1), (delta, 1), (anchor, 0), (var, 0)))

    def rpn_loss(self, outputs, gt_box, is_crowd, im_info):
        layers = self.layers
        score, delta, anchor, var = self.flat(outputs)
        score_pred, loc_pred, score_tgt, loc_tgt, weight = layers.rpn_target_assign(
            bbox_pred=delta,
            cls_logits=score,
            anchor_box=anchor,
            anchor_var=var,
            gt_boxes=gt_box,
            is_crowd=is_crowd,
            im_info=im_info,
            rpn_batch_size_per_im=16,
            rpn_straddle_thresh=0.0,
            rpn_fg_fraction=0.5,
            rpn_positive_overlap=0.6,
            rpn_negative_overlap=0.3,
            use_random=False,
        )
        score_tgt = layers.cast(x=score_tgt, dtype="float32")
        score_tgt.stop_gradient = True
        cls = layers.reduce_mean(layers.sigmoid_cross_entropy_with_logits(x=score_pred, label=score_tgt))
        reg = layers.smooth_l1(x=loc_pred, y=loc_tgt, sigma=3.0, inside_weight=weight, outside_weight=weight)
        norm = layers.reduce_prod(layers.cast(layers.shape(score_tgt), "float32"))
        norm.stop_gradient = True
        return cls, layers.reduce_sum(reg) / norm

    def roi_feature(self, features, rois, resolution):
        layers = self.layers
        if len(features) == 1:
            return layers.roi_align(features[0], rois, resolution, resolution, spatial_scale=1 / 8.0, sampling_ratio=2)
        levels, restore = layers.distribute_fpn_proposals(rois, 3, 4, 4, 48)
        pooled = [
            layers.roi_align(f, r, resolution, resolution, spatial_scale=1 / (8.0 * 2**i), sampling_ratio=2)
            for i, (f, r) in enumerate(zip(features, levels))
        ]
        joined = layers.concat(pooled, axis=0)
        joined = layers.gather(joined, restore)
        joined.stop_gradient = False
        return joined

    def box_head(self, features, rois):
        pooled = self.roi_feature(features, rois, 3)
        hidden = self.fc(self.fc(pooled, HIDDEN, "fc6", act="relu"), HIDDEN, "fc7", act="relu")
        return self.fc(hidden, CLASSES, "cls_score"), self.fc(hidden, 4 * CLASSES, "bbox_pred"), pooled

    def mask_logits(self, features, rois):
        pooled = self.roi_feature(features, rois, RESOLUTION // 2)
        net = self.layers.conv2d_transpose(
            self.conv(pooled, 6, 3, 1, "mask_inter_feat"),
            num_filters=6,
            filter_size=2,
            stride=2,
            act="relu",
            param_attr=self.attr("conv5_mask_w"),
            bias_attr=self.bias("conv5_mask_b"),
        )
        return self.conv(net, CLASSES, 1, 1, "mask_fcn_logits", act=None)


def collect(net, outputs):
    if len(outputs) == 1:
        return outputs[0][4]
    rois, probs = [o[4] for o in outputs], [o[5] for o in outputs]
    return net.layers.collect_fpn_proposals(rois, probs, 3, 4, 16, name="collect")


def training(fluid, variant):
    layers, net = fluid.layers, Detector(fluid, variant, True)
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    gt_box = layers.data(name="gt_box", shape=[4], dtype="float32", lod_level=1)
    gt_label = layers.data(name="gt_label", shape=[1], dtype="int32", lod_level=1)
    is_crowd = layers.data(name="is_crowd", shape=[1], dtype="int32", lod_level=1)
    im_info = layers.data(name="im_info", shape=[3], dtype="float32")
    features = net.body(image)
    outputs = [net.rpn(feature, level, im_info) for level, feature in enumerate(features)]
    rois, labels, targets, inside, outside = layers.generate_proposal_labels(
        rpn_rois=collect(net, outputs),
        gt_classes=gt_label,
        is_crowd=is_crowd,
        gt_boxes=gt_box,
        im_info=im_info,
        batch_size_per_im=8,
        fg_fraction=0.5,
        fg_thresh=0.5,
        bg_thresh_hi=0.5,
        bg_thresh_lo=0.0,
        bbox_reg_weights=[0.1, 0.1, 0.2, 0.2],
        class_nums=CLASSES,
        use_random=False,
    )
    for value in (rois, labels, targets, inside, outside):
        value.stop_gradient = True
    score, delta, _ = net.box_head(features, rois)
    labels_int64 = layers.cast(x=labels, dtype="int64")
    labels_int64.stop_gradient = True
    cls = layers.reduce_mean(layers.softmax_with_cross_entropy(logits=score, label=labels_int64))
    box = layers.smooth_l1(x=delta, y=targets, inside_weight=inside, outside_weight=outside, sigma=1.0)
    losses = [cls, layers.reduce_mean(box)] + list(net.rpn_loss(outputs, gt_box, is_crowd, im_info))
    if variant == "mask":
        gt_masks = layers.data(name="gt_masks", shape=[2], dtype="float32", lod_level=3)
        mask_rois, _, mask = layers.generate_mask_labels(
            im_info=im_info,
            gt_classes=gt_label,
            is_crowd=is_crowd,
            gt_segms=gt_masks,
            rois=rois,
            labels_int32=labels,
            num_classes=CLASSES,
            resolution=RESOLUTION,
        )
        logits = layers.reshape(net.mask_logits(features, mask_rois), (-1, CLASSES * RESOLUTION**2))
        label = layers.cast(mask, dtype="float32")
        label.stop_gradient = True
        cost = layers.sigmoid_cross_entropy_with_logits(x=logits, label=label, ignore_index=-1, normalize=True)
        losses.append(layers.reduce_sum(cost, name="loss_mask"))
    return layers.sum(losses), losses + [rois, labels, targets]


def inference(fluid, variant):
    layers, net = fluid.layers, Detector(fluid, variant, False)
    image = layers.data(name="image", shape=[3, SIZE, SIZE], dtype="float32")
    im_info = layers.data(name="im_info", shape=[3], dtype="float32")
    im_shape = layers.data(name="im_shape", shape=[3], dtype="float32")
    features = net.body(image)
    rois = collect(net, [net.rpn(feature, level, im_info) for level, feature in enumerate(features)])
    score, delta, _ = net.box_head(features, rois)
    delta = layers.reshape(delta, (-1, CLASSES, 4))
    decoded = layers.box_coder(
        prior_box=rois,
        prior_box_var=[0.1, 0.1, 0.2, 0.2],
        target_box=delta * 0.1,
        code_type="decode_center_size",
        box_normalized=False,
        axis=1,
    )
    clipped = layers.box_clip(input=decoded, im_info=im_shape)
    found = layers.multiclass_nms(
        bboxes=clipped,
        scores=layers.softmax(score),
        score_threshold=0.05,
        nms_top_k=20,
        keep_top_k=6,
        nms_threshold=0.5,
        normalized=False,
    )
    if variant != "mask":
        return [found]
    boxes = layers.slice(found, [1], starts=[2], ends=[6])
    boxes.stop_gradient = True
    return [found, layers.sigmoid(net.mask_logits(features, layers.lod_reset(boxes, found)))]


def build(fluid, variant):
    loss, fetch = training(fluid, variant)
    feeds = repeat(data, 5)
    if variant != "mask":
        for feed in feeds:
            del feed["gt_masks"]
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()), fluid.unique_name.guard():
        found = inference(fluid, variant)
    feed = {"image": feeds[0]["image"], "im_info": feeds[0]["im_info"], "im_shape": feeds[0]["im_info"]}

    def train():
        fluid.optimizer.Momentum(
            learning_rate=fluid.layers.piecewise_decay([3], [0.005, 0.0005]),
            momentum=0.9,
            regularization=fluid.regularizer.L2Decay(1e-4),
        ).minimize(loss)

    return Model(loss, feeds, fetch, train, test=(program, feed, found))
