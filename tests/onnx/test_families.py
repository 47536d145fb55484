"""The model families of tests/programs: exported, run in ONNX Runtime; imported again, run here."""

import io

import numpy as np
import pytest
from families import all_families
from family_status import STATUS
from round_trip import compare, inference_of

QUICK = ("classify/mobilenet-v1", "text/sentiment-lstm", "text/bigru_crf", "ranking/deepfm", "text/rnn_search")
FAMILIES = [
    pytest.param(name, module, variant, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name, module, variant in all_families()
]


# Many boxes have no area, and scores so near each other that two of them may change places, one at the end fall out.
CROWDED = "detect/ssd-normalised:test"


def same_boxes(want, got, tolerance=1e-4):
    """Every image has as many boxes, and of a hundred at most one without a partner."""
    for (a, la), (b, lb) in zip(want, got, strict=True):
        assert la == lb
        for x, y in zip(np.split(a, np.cumsum(la[-1])[:-1]), np.split(b, np.cumsum(la[-1])[:-1])):
            gaps = np.abs(x[:, None] - y[None]).max(2).min(1)
            assert (gaps > tolerance).mean() <= 0.01


def test_every_family_has_its_status():
    assert [name for name, *_ in all_families()] == list(STATUS)


@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_round_trip(name, module, variant):
    found = {}
    for kind, one in inference_of(module, variant):
        found[kind] = " ".join(one.refused)
        assert one.fetches
        want, model = one.run(), one.export()
        for out in model.graph.output:  # no scalars: a Fluid tensor has a dim, and one of unknown shape states none
            shape = out.type.tensor_type
            assert not shape.HasField("shape") or len(shape.shape.dim) > 0, out.name
        check = same_boxes if f"{name}:{kind}" == CROWDED else compare
        check(want, one.run_onnx(model))
        check(want, one.run_imported(model))
    assert found == STATUS[name]


# Arrays that a loop carries are beyond its reader of ONNX.
NOT_IN_OPENVINO = (
    "text/seq2seq_cells:test", "text/rnn_search:forward", "text/rnn_search:test", "text/transformer:test",
    "dense/attention_ocr:forward", "dense/attention_ocr:test",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_in_openvino(name, module, variant):
    openvino = pytest.importorskip("openvino")
    for kind, one in inference_of(module, variant):
        if not one.fetches or f"{name}:{kind}" in NOT_IN_OPENVINO:
            continue
        model = one.export()
        core = openvino.Core()
        read = core.read_model(io.BytesIO(model.SerializeToString()))
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        given = one.onnx_feed()
        names = [next(n for n in i.get_names() if n in given) for i in compiled.inputs]
        found = compiled([given[n] for n in names])
        arrays = [found[i] for i in range(len(compiled.outputs))]
        found = one.grouped([o.name for o in model.graph.output], arrays)
        (same_boxes if f"{name}:{kind}" == CROWDED else compare)(one.run(), found, 1e-3)
