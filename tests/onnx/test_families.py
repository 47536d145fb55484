"""The model families of tests/programs: exported, run in ONNX Runtime; imported again, run here."""

import io

import pytest
from families import all_families
from round_trip import compare, inference_of

from millstream.errors import NotSupportedError

QUICK = ("classify/mobilenet-v1", "text/sentiment-lstm", "text/bigru_crf", "ranking/deepfm")
FAMILIES = [
    pytest.param(name, module, variant, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name, module, variant in all_families()
]
LOOPS = ("dense/attention_ocr:forward", "dense/attention_ocr:test", "text/rnn_search:forward", "text/rnn_search:test",
         "text/transformer:test")  # fmt: skip
# Boxes without area that touch suppress each other in Fluid (their overlap is not a number) and not in ONNX.
NO_AREA = ("detect/ssd-normalised:test",)
# A decoder that overwrites elements of an array: SequenceErase has no Fluid operator.
EXPORT_ONLY = ("text/seq2seq_cells:test",)


@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_round_trip(name, module, variant):
    for kind, one in inference_of(module, variant):
        title = f"{name}:{kind}"
        if title in LOOPS:
            assert not one.fetches
            continue
        want, model = one.run(), one.export()
        if title in NO_AREA:
            continue
        compare(want, one.run_onnx(model))
        if title in EXPORT_ONLY:
            with pytest.raises(NotSupportedError, match="SequenceErase"):
                one.run_imported(model)
            continue
        compare(want, one.run_imported(model))


# Arrays that a loop carries are beyond its reader of ONNX.
NOT_IN_OPENVINO = ("text/seq2seq_cells:test",)


@pytest.mark.slow
@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_in_openvino(name, module, variant):
    openvino = pytest.importorskip("openvino")
    for kind, one in inference_of(module, variant):
        if not one.fetches or f"{name}:{kind}" in (*NO_AREA, *NOT_IN_OPENVINO):
            continue
        model = one.export()
        core = openvino.Core()
        read = core.read_model(io.BytesIO(model.SerializeToString()))
        compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        given = one.onnx_feed()
        names = [next(n for n in i.get_names() if n in given) for i in compiled.inputs]
        found = compiled([given[n] for n in names])
        arrays = [found[i] for i in range(len(compiled.outputs))]
        compare(one.run(), one.grouped([o.name for o in model.graph.output], arrays), 1e-3)
