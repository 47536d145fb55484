import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError

RNG = np.random.RandomState(24)


def boxes(n, scale=1.0, rng=RNG):
    corner = rng.rand(n, 2) * 0.6 * scale
    return np.concatenate([corner, corner + rng.rand(n, 2) * 0.4 * scale + 0.05 * scale], 1)


def iou(a, b):
    side = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = side.prod() if (side > 0).all() else 0.0
    return inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter)


NMS = {"background_label": -1, "score_threshold": 0.1, "nms_top_k": -1, "nms_threshold": 0.4, "keep_top_k": -1}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_suppression_keeps_the_best_and_nothing_that_overlaps_it(seed):
    rng = np.random.RandomState(seed)
    b, s = boxes(9, rng=rng)[None], rng.rand(1, 2, 9)
    got = run_op("multiclass_nms2", {"BBoxes": b, "Scores": s}, NMS, ("Out", "Index"))
    rows = got["Out"]
    for c in (0, 1):
        kept = rows[rows[:, 0] == c]
        assert (np.diff(kept[:, 1]) <= 0).all()
        assert kept[0, 1] == s[0, c].max()
        assert all(iou(p[2:], q[2:]) <= 0.4 + 1e-9 for i, p in enumerate(kept) for q in kept[:i])
        dropped = [m for m in range(9) if s[0, c, m] > 0.1 and not any((b[0, m] == k[2:]).all() for k in kept)]
        assert all(any(iou(b[0, m], k[2:]) > 0.4 and k[1] >= s[0, c, m] for k in kept) for m in dropped)
    np.testing.assert_array_equal(b[0][got["Index"].ravel()], rows[:, 2:])


def test_suppression_without_any_detection():
    ins = {"BBoxes": boxes(3)[None], "Scores": np.zeros((1, 2, 3))}
    assert run_op("multiclass_nms", ins, NMS)["Out"].tolist() == [[-1]]
    empty = run_op("multiclass_nms2", ins, NMS, ("Out", "Index"))
    assert empty["Out"].size == 0 and empty.lods["Out"] == [[0]]


def test_polygons_are_suppressed_like_the_boxes_they_are():
    b, s = boxes(8)[None], RNG.rand(1, 2, 8)
    quads = b[..., [0, 1, 2, 1, 2, 3, 0, 3]]
    plain = run_op("multiclass_nms", {"BBoxes": b, "Scores": s}, NMS)["Out"]
    np.testing.assert_allclose(run_op("multiclass_nms", {"BBoxes": quads, "Scores": s}, NMS)["Out"][:, :2], plain[:, :2])


def test_decoding_undoes_encoding():
    priors, truth, var = boxes(4), boxes(3), RNG.rand(4, 4) + 0.1
    ins = {"PriorBox": priors, "PriorBoxVar": var, "TargetBox": truth}
    coded = run_op("box_coder", ins, {"code_type": "encode_center_size"}, ("OutputBox",))["OutputBox"]
    ins["TargetBox"] = coded
    back = run_op("box_coder", ins, {"code_type": "decode_center_size"}, ("OutputBox",))["OutputBox"]
    np.testing.assert_allclose(back, np.repeat(truth[:, None], 4, 1), atol=1e-10)


def test_matching_takes_each_row_once_and_the_largest_first():
    dist = RNG.rand(5, 4)
    got = run_op(
        "bipartite_match", {"DistMat": dist}, {}, ("ColToRowMatchIndices", "ColToRowMatchDist"), lods={"DistMat": [[2, 3]]}
    )
    index = got["ColToRowMatchIndices"]
    for image, part in ((0, dist[:2]), (1, dist[2:])):
        used = index[image][index[image] >= 0]
        assert len(set(used)) == len(used) == len(part)
        row, column = np.unravel_index(part.argmax(), part.shape)
        assert index[image, column] == row


def test_fpn_levels_can_be_put_back():
    rois = np.concatenate([boxes(3, 40), boxes(4, 900)]).astype("float32")
    attrs = {"min_level": 2, "max_level": 2, "refer_level": 4, "refer_scale": 224}
    got = run_op(
        "distribute_fpn_proposals", {"FpnRois": rois}, attrs, ("MultiFpnRois", "RestoreIndex"), lods={"FpnRois": [[3, 4]]}
    )
    np.testing.assert_array_equal(got["MultiFpnRois"][got["RestoreIndex"].ravel()], rois)


def test_priors_are_centred_on_their_cells():
    ins = {"Input": np.zeros((1, 2, 2, 4), "float32"), "Image": np.zeros((1, 3, 20, 40), "float32")}
    attrs = {"min_sizes": [4.0], "aspect_ratios": [2.0], "variances": [0.1] * 4, "flip": True, "clip": False}
    got = run_op("prior_box", ins, attrs, ("Boxes", "Variances"))["Boxes"]
    centres = (got[..., :2] + got[..., 2:]) / 2 * [40, 20]
    np.testing.assert_allclose(centres[1, 2], [[25, 15]] * 3, atol=1e-4)
    assert got.shape == (2, 4, 3, 4)


ROIS = np.array([[0.4, 0.7, 3.9, 4.2], [1.1, 0.3, 5.2, 3.8], [0.0, 1.0, 2.7, 5.5]])
LOD = {"ROIs": [[1, 2]]}
POOLED = {"pooled_height": 2, "pooled_width": 2}


@pytest.mark.parametrize(
    ("op", "attrs", "outs", "channels", "wrt"),
    [
        ("roi_align", {**POOLED, "sampling_ratio": 2}, ("Out",), 2, ("X",)),
        ("roi_align", {**POOLED, "spatial_scale": 0.7}, ("Out",), 2, ("X",)),
        ("roi_pool", POOLED, ("Out", "Argmax"), 2, ("X",)),
        ("psroi_pool", {**POOLED, "output_channels": 1}, ("Out",), 4, ("X",)),
        ("prroi_pool", POOLED, ("Out",), 2, ("X", "ROIs")),
    ],
)
def test_gradients_of_region_pooling(op, attrs, outs, channels, wrt):
    ins = {"X": RNG.randn(2, channels, 5, 5), "ROIs": ROIS}
    numeric_grad_check(op, ins, attrs, outs, wrt=wrt, lods=LOD)


def test_regions_may_be_absent_from_an_image():
    ins = {"X": RNG.randn(2, 1, 4, 4), "ROIs": ROIS[:2]}
    got = run_op("roi_align", ins, POOLED, lods={"ROIs": [[0, 2]]})["Out"]
    moved = run_op("roi_align", {**ins, "X": ins["X"][1:]}, POOLED, lods={"ROIs": [[2]]})["Out"]
    np.testing.assert_allclose(got, moved)
    with pytest.raises(EnforceNotMet, match="for 2 images"):
        run_op("roi_align", ins, POOLED, lods={"ROIs": [[2]]})


def test_an_image_without_an_anchor_inside_it_teaches_nothing():
    ins = {"Anchor": boxes(5, 9.0) - 20, "GtBoxes": boxes(2, 9.0), "IsCrowd": np.zeros((2, 1), "int32")}
    ins = {name: array.astype("float32") if array.dtype == float else array for name, array in ins.items()}
    ins["ImInfo"] = np.array([[10, 10, 1]], "float32")
    outs = ("LocationIndex", "ScoreIndex", "TargetBBox", "TargetLabel", "BBoxInsideWeight")
    lods = {"GtBoxes": [[2]], "IsCrowd": [[2]]}
    got = run_op("rpn_target_assign", ins, {"rpn_straddle_thresh": 0.0}, outs, lods=lods)
    assert all(got[slot].size == 0 for slot in outs)


def test_yolo_loss_gradient_where_no_two_boxes_meet():
    ins = {
        "X": RNG.randn(1, 14, 3, 3) * 0.3,
        "GTBox": np.array([[[0.2, 0.2, 0.3, 0.4], [0.8, 0.5, 0.2, 0.1], [0, 0, 0, 0]]]),
        "GTLabel": np.array([[1, 0, 0]], "int32"),
    }
    attrs = {
        "anchors": [10, 13, 33, 23],
        "anchor_mask": [0, 1],
        "class_num": 2,
        "ignore_thresh": 0.9,
        "downsample_ratio": 16,
    }
    numeric_grad_check("yolov3_loss", ins, attrs, ("Loss", "ObjectnessMask", "GTMatchMask"), wrt=("X",))


def test_perfect_detections_have_map_one():
    truth = np.concatenate([[[1], [2], [1]], boxes(3)], 1).astype("float32")
    found = np.concatenate([truth[:, :1], [[0.9], [0.8], [0.7]], truth[:, 1:]], 1).astype("float32")
    outs = ("AccumPosCount", "AccumTruePos", "AccumFalsePos", "MAP")
    lods = {"DetectRes": [[2, 1]], "Label": [[2, 1]]}
    for kind in ("integral", "11point"):
        got = run_op(
            "detection_map", {"DetectRes": found, "Label": truth}, {"class_num": 3, "ap_type": kind}, outs, lods=lods
        )
        assert got["MAP"][0] == pytest.approx(1.0)
        assert got["AccumPosCount"].ravel().tolist() == [0, 2, 1]


def test_a_mask_covers_its_polygon():
    ins = {
        "ImInfo": np.array([[20, 20, 1]], "float32"),
        "GtClasses": np.array([[1]], "int32"),
        "IsCrowd": np.array([[0]], "int32"),
        "GtSegms": np.array([[0, 0], [5, 0], [5, 10], [0, 10]], "float32"),
        "Rois": np.array([[0, 0, 10, 10]], "float32"),
        "LabelsInt32": np.array([[1]], "int32"),
    }
    one = [[1]]
    lods = {"GtClasses": one, "IsCrowd": one, "GtSegms": [[1], [1], [4]], "Rois": one, "LabelsInt32": one}
    outs = ("MaskRois", "RoiHasMaskInt32", "MaskInt32")
    mask = run_op("generate_mask_labels", ins, {"num_classes": 2, "resolution": 4}, outs, lods=lods)["MaskInt32"]
    assert (mask[0, :16] == -1).all()
    np.testing.assert_array_equal(mask[0, 16:].reshape(4, 4), [[1, 1, 0, 0]] * 4)


YOLO = {"X": np.zeros((1, 9, 2, 2)), "ImgSize": np.zeros((1, 2), "int32")}
CODER = {"PriorBox": boxes(2), "TargetBox": boxes(2)}
UNEQUAL = {"BBoxes": np.zeros((1, 3, 4)), "Scores": np.zeros((1, 2, 5))}
PSROI = {"X": np.zeros((1, 3, 4, 4)), "ROIs": ROIS}


@pytest.mark.parametrize(
    ("op", "ins", "attrs", "outs", "error", "words"),
    [
        ("iou_similarity", {"X": boxes(2), "Y": boxes(2)[:, :3]}, {}, ("Out",), ShapeError, r"\[boxes, 4\]"),
        ("box_coder", CODER, {"code_type": "x"}, ("OutputBox",), AttributeTypeError, "code_type"),
        ("psroi_pool", PSROI, {**POOLED, "output_channels": 1}, ("Out",), ShapeError, "= 4 channels"),
        ("yolo_box", YOLO, {"class_num": 2, "anchors": [1, 2]}, ("Boxes", "Scores"), ShapeError, "7 channels"),
        ("multiclass_nms", UNEQUAL, NMS, ("Out",), ShapeError, "as many boxes"),
    ],
)
def test_wrong_inputs_are_refused_when_built(op, ins, attrs, outs, error, words):
    with pytest.raises(error, match=words):
        run_op(op, ins, attrs, outs)
