"""Every exportable operator: the cases recorded from 1.8.5 as ONNX in ONNX Runtime, and read back and run here."""

import pytest
from golden import op_files, read_back, run_file

from millstream.onnx.writer.emission import emitter_of

FILES = op_files()
# What differs, and why.
KNOWN = {
    "cast_06": "float16 is rounded to even here, cut in 1.8.5's recording",
    "top_k_05": "equal numbers: ONNX takes the first, Fluid's heap another",
    "lod_array_length_01": "an array with gaps: ONNX's sequences have none",
}
# Their recorded cases are all of the forms that are refused: training, arrays with gaps.
NOT_ALONE = (
    "lod_array_length", "tensor_array_to_tensor", "moving_average_abs_max_scale", "fake_quantize_moving_average_abs_max",
    "fake_quantize_dequantize_moving_average_abs_max",
)  # fmt: skip
QUICK = (
    "batch_norm", "concat", "conv2d", "crf_decoding", "elementwise_add", "gru", "lstm", "layer_norm", "matmul",
    "multiclass_nms", "pool2d", "prior_box", "reduce_mean", "reshape2", "sequence_conv", "sequence_expand",
    "sequence_pool", "slice", "softmax", "yolo_box",
)  # fmt: skip
EXPORTABLE = [name for name in FILES if emitter_of(name) is not None]
CASES = [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in EXPORTABLE]


def test_there_are_many():
    assert len(EXPORTABLE) >= 290


@pytest.mark.parametrize("name", CASES)
def test_as_onnx(name):
    results = run_file(FILES[name])
    wrong = [
        f"{case}: {result[0]}: {result[1]}"
        for case, result in results.items()
        # "engine": ONNX Runtime has no float64 kernel; "refused": a form of the operator that is refused with its reason
        if result is not None and result[0] not in ("refused", "skipped", "engine") and case not in KNOWN
    ]
    assert not [w for w in wrong if "support double" not in w], "\n".join(wrong)
    assert name in NOT_ALONE or any(r is None or r[0] == "skipped" for r in results.values()), results


@pytest.mark.parametrize("name", CASES)
def test_read_back(name):
    wrong = [
        f"{case}: {result[0]}: {result[1]}"
        for case, result in read_back(FILES[name]).items()
        if result is not None and result[0] not in ("refused", "skipped") and case not in KNOWN
    ]
    assert not wrong, "\n".join(wrong)
