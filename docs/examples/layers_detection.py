"""fluid.layers: detection of objects

Boxes are [x1, y1, x2, y2].
"""
# ruff: noqa
#: layers.prior_box
features, picture = data(np.zeros((1, 8, 2, 2))), data(np.zeros((1, 3, 20, 20)))
boxes, variances = layers.prior_box(features, picture, min_sizes=[4.0], aspect_ratios=[1.0])
show(layers.reshape(boxes, [-1, 4]), layers.shape(variances))
#: layers.density_prior_box
features, picture = data(np.zeros((1, 8, 1, 1))), data(np.zeros((1, 3, 20, 20)))
boxes, variances = layers.density_prior_box(features, picture, densities=[2], fixed_sizes=[8.0], fixed_ratios=[1.0])
show(layers.reshape(boxes, [-1, 4]))
#: layers.anchor_generator
features = data(np.zeros((1, 8, 1, 2)))
anchors, variances = layers.anchor_generator(features, anchor_sizes=[16.0], aspect_ratios=[1.0], stride=[16.0, 16.0])
show(layers.reshape(anchors, [-1, 4]))
#: layers.box_coder
prior = data([[0.0, 0.0, 10.0, 10.0]])
target = data([[5.0, 5.0, 15.0, 15.0]])
variance = [0.1, 0.1, 0.2, 0.2]
offsets = layers.box_coder(prior, variance, target, code_type="encode_center_size", box_normalized=True)
show(offsets)
show(layers.box_coder(prior, variance, offsets, code_type="decode_center_size", box_normalized=True))
#: layers.box_clip
boxes = data([[-5.0, 2.0, 30.0, 8.0]], lengths=[[1]])
size = data([[10.0, 20.0, 1.0]])  # height, width, scale
show(layers.box_clip(boxes, size))
#: layers.multiclass_nms
boxes = data([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9], [2.0, 2.0, 3.0, 3.0]]])
scores = data([[[0.9, 0.8, 0.1], [0.05, 0.1, 0.7]]])  # [batch, classes, boxes]
out = layers.multiclass_nms(boxes, scores, 0.3, nms_top_k=10, keep_top_k=10, nms_threshold=0.5, background_label=-1)
show(out)  # label, score, box
#: layers.detection_output
prior, variance = data([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]), data([[0.1, 0.1, 0.2, 0.2]] * 2)
location = data(np.zeros((1, 2, 4)))
scores = layers.reshape(data([[0.1, 0.9], [0.8, 0.2]]), [1, 2, 2])
show(layers.detection_output(location, scores, prior, variance, score_threshold=0.5))
#: layers.ssd_loss
prior, variance = data([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]), data([[0.1, 0.1, 0.2, 0.2]] * 2)
location, confidence = data(np.zeros((1, 2, 4))), data(np.zeros((1, 2, 3)))
box, label = data([[0.0, 0.0, 0.5, 0.5]], lengths=[[1]]), data([[1]], lengths=[[1]], dtype="int32")
show(layers.ssd_loss(location, confidence, box, label, prior, variance))
#: layers.multi_box_head
picture = data(np.zeros((1, 3, 30, 30)))
features = [data(np.zeros((1, 4, 3, 3))), data(np.zeros((1, 4, 2, 2))), data(np.zeros((1, 4, 1, 1)))]
location, confidence, boxes, variances = layers.multi_box_head(
    features, picture, base_size=30, num_classes=2, aspect_ratios=[[2.0]] * 3, min_ratio=20, max_ratio=90
)
show(layers.shape(location), layers.shape(confidence), layers.shape(boxes))
#: layers.yolo_box
x = data(np.zeros((1, 7, 1, 1)))  # one anchor: box, objectness, two classes
boxes, scores = layers.yolo_box(x, data([[32, 32]], dtype="int32"), anchors=[16, 16], class_num=2, conf_thresh=0.01, downsample_ratio=32)
show(boxes, scores)
#: layers.yolov3_loss
x = data(np.zeros((1, 7, 1, 1)))
box, label = data([[[0.5, 0.5, 0.5, 0.5]]]), data([[1]], dtype="int32")
loss = layers.yolov3_loss(x, box, label, anchors=[16, 16], anchor_mask=[0], class_num=2, ignore_thresh=0.7, downsample_ratio=32)
show(loss)
#: layers.generate_proposals
scores = data(np.array([0.9, 0.2]).reshape(1, 2, 1, 1))
deltas = data(np.zeros((1, 8, 1, 1)))
anchors = data(np.array([[0.0, 0.0, 15.0, 15.0], [0.0, 0.0, 7.0, 7.0]]).reshape(1, 1, 2, 4))
variances = data(np.ones((1, 1, 2, 4)))
boxes, p = layers.generate_proposals(scores, deltas, data([[32.0, 32.0, 1.0]]), anchors, variances, nms_thresh=0.7)
show(boxes, p)
#: layers.rpn_target_assign
anchors = data([[0.0, 0.0, 15.0, 15.0], [16.0, 16.0, 31.0, 31.0], [0.0, 16.0, 15.0, 31.0]])
offsets, logits = data(np.zeros((1, 3, 4))), data(np.zeros((1, 3, 1)))
truth, crowd = data([[0.0, 0.0, 15.0, 15.0]], lengths=[[1]]), data([[0]], lengths=[[1]], dtype="int32")
size = data([[32.0, 32.0, 1.0]])
score, location, label, target, inside = layers.rpn_target_assign(
    offsets, logits, anchors, data(np.ones((3, 4))), truth, crowd, size, rpn_batch_size_per_im=3, use_random=False
)
show(label, target)
#: layers.generate_proposal_labels
rois = data([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]], lengths=[[2]])
classes, crowd = data([[1]], lengths=[[1]], dtype="int32"), data([[0]], lengths=[[1]], dtype="int32")
truth, size = data([[0.0, 0.0, 10.0, 10.0]], lengths=[[1]]), data([[32.0, 32.0, 1.0]])
rois, labels, targets, inside, outside = layers.generate_proposal_labels(
    rois, classes, crowd, truth, size, batch_size_per_im=3, class_nums=2, use_random=False
)
show(rois, labels)
#: layers.generate_mask_labels
size, classes = data([[8.0, 8.0, 1.0]]), data([[1]], lengths=[[1]], dtype="int32")
crowd = data([[0]], lengths=[[1]], dtype="int32")
polygon = data([[0.0, 0.0], [8.0, 0.0], [8.0, 8.0], [0.0, 8.0]], lengths=[[1], [1], [4]])
rois, labels = data([[0.0, 0.0, 8.0, 8.0]], lengths=[[1]]), data([[1]], lengths=[[1]], dtype="int32")
mask_rois, has_mask, mask = layers.generate_mask_labels(
    size, classes, crowd, polygon, rois, labels, num_classes=2, resolution=2
)
show(mask_rois, has_mask, mask)
#: layers.distribute_fpn_proposals
rois = data([[0.0, 0.0, 300.0, 300.0], [0.0, 0.0, 50.0, 50.0]], lengths=[[2]])
levels, restore = layers.distribute_fpn_proposals(rois, min_level=2, max_level=4, refer_level=4, refer_scale=224)
show(levels[0], levels[2], restore)
#: layers.collect_fpn_proposals
one = data([[0.0, 0.0, 1.0, 1.0]], lengths=[[1]])
other = data([[5.0, 5.0, 6.0, 6.0]], lengths=[[1]])
scores = [data([[0.2]], lengths=[[1]]), data([[0.9]], lengths=[[1]])]
show(layers.collect_fpn_proposals([one, other], scores, min_level=2, max_level=3, post_nms_top_n=1))
#: layers.iou_similarity
show(layers.iou_similarity(data([[0.0, 0.0, 2.0, 2.0]]), data([[1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])))
#: layers.bipartite_match
distance = data([[0.9, 0.1], [0.8, 0.7]], lengths=[[2]])
indices, matched = layers.bipartite_match(distance)
show(indices, matched)
#: layers.target_assign
rows = data([[1.0, 2.0], [3.0, 4.0]], lengths=[[2]])
out, weight = layers.target_assign(layers.reshape(rows, [-1, 1, 2]), data([[1, -1]], dtype="int32"), mismatch_value=9)
print(out.shape, weight.shape)
#: layers.polygon_box_transform
show(layers.polygon_box_transform(data(np.zeros((1, 2, 1, 2)))))
#: layers.matrix_nms
boxes = data([[[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]])
scores = data([[[0.9, 0.3]]])
show(layers.matrix_nms(boxes, scores, 0.1, 0.1, nms_top_k=5, keep_top_k=5, background_label=-1)[0])
#: layers.retinanet_target_assign
anchors = data([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]])
scores, offsets = data(np.zeros((1, 2, 1))), data(np.zeros((1, 2, 4)))  # of one picture, for each anchor
boxes, labels, crowd = data([[0.0, 0.0, 9.0, 9.0]], lengths=[[1]]), data([[1]], [[1]], "int32"), data([[0]], [[1]], "int32")
assigned = layers.retinanet_target_assign(
    offsets, scores, anchors, layers.ones([2, 4], "float32"), boxes, labels, crowd, data([[40.0, 40.0, 1.0]]), num_classes=1
)
show(assigned[2], assigned[3], assigned[5])  # labels (0: background), offsets of the matching anchor, their number + 1
#: layers.retinanet_detection_output
anchors = data([[0.0, 0.0, 9.0, 9.0], [20.0, 20.0, 29.0, 29.0]])
offsets, scores = data(np.zeros((1, 2, 4))), data([[[0.9, 0.1], [0.2, 0.8]]])  # of one level of the pyramid; two classes
found = layers.retinanet_detection_output([offsets], [scores], [anchors], data([[40.0, 40.0, 1.0]]), score_threshold=0.5)
show(found)  # class, score, box; the threshold is not applied to the last level
#: layers.locality_aware_nms
boxes = data([[[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 0.0, 30.0, 10.0]]])
scores = data([[[0.5, 0.5, 0.4]]])
# the first two boxes become their mean, weighted by the scores, which add up
show(layers.locality_aware_nms(boxes, scores, 0.1, nms_top_k=10, keep_top_k=10, nms_threshold=0.3, normalized=False))
#: layers.box_decoder_and_assign
prior, variance = data([[0.0, 0.0, 9.0, 9.0]]), data([0.1, 0.1, 0.2, 0.2])
offsets = data([[0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])  # of two classes
decoded, assigned = layers.box_decoder_and_assign(prior, variance, offsets, data([[0.1, 0.9]]), box_clip=4.135)
show(decoded, assigned)  # assigned: the box of the likelier class
