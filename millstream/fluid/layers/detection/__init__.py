"""``fluid.layers.detection``: object detection by theme."""

from millstream.fluid.layers.detection.matching import (
    bipartite_match,
    box_clip,
    box_coder,
    box_decoder_and_assign,
    iou_similarity,
    polygon_box_transform,
    sigmoid_focal_loss,
    ssd_loss,
    target_assign,
)
from millstream.fluid.layers.detection.priors import (
    anchor_generator,
    density_prior_box,
    multi_box_head,
    prior_box,
)
from millstream.fluid.layers.detection.proposals import (
    collect_fpn_proposals,
    distribute_fpn_proposals,
    generate_mask_labels,
    generate_proposal_labels,
    generate_proposals,
    retinanet_target_assign,
    rpn_target_assign,
)
from millstream.fluid.layers.detection.roi import (
    deformable_roi_pooling,
    prroi_pool,
    psroi_pool,
    roi_align,
    roi_perspective_transform,
    roi_pool,
)
from millstream.fluid.layers.detection.suppression import (
    detection_map,
    detection_output,
    locality_aware_nms,
    matrix_nms,
    multiclass_nms,
    retinanet_detection_output,
)
from millstream.fluid.layers.detection.yolo import (
    yolo_box,
    yolov3_loss,
)

__all__ = [
    "anchor_generator",
    "bipartite_match",
    "box_clip",
    "box_coder",
    "box_decoder_and_assign",
    "collect_fpn_proposals",
    "deformable_roi_pooling",
    "density_prior_box",
    "detection_map",
    "detection_output",
    "distribute_fpn_proposals",
    "generate_mask_labels",
    "generate_proposal_labels",
    "generate_proposals",
    "iou_similarity",
    "locality_aware_nms",
    "matrix_nms",
    "multi_box_head",
    "multiclass_nms",
    "polygon_box_transform",
    "prior_box",
    "prroi_pool",
    "psroi_pool",
    "retinanet_detection_output",
    "retinanet_target_assign",
    "roi_align",
    "roi_perspective_transform",
    "roi_pool",
    "rpn_target_assign",
    "sigmoid_focal_loss",
    "ssd_loss",
    "target_assign",
    "yolo_box",
    "yolov3_loss",
]
