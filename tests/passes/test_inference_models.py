"""Every model family of tests/programs, saved, optimised, saved again: results stay, and each pass fires where it should."""

import pytest
from families import all_families
from firing import FIRED
from inference_models import compare, save, size

import millstream.fluid as fluid
from millstream.passes import find, pipelines

# One family for each kind of network; the others take the rest of the time.
QUICK = {
    "classify/mobilenet-v2", "classify/vgg", "dense/crnn_ctc", "detect/rcnn-faster", "gan/wgan_gp", "ranking/deepfm",
    "ranking/multiview_simnet-cnn", "text/bert", "text/bidaf", "text/bigru_crf", "text/language_model-lod_lstm",
    "text/language_model-static", "text/sentiment-bilstm",
}  # fmt: skip
FAMILIES = [
    pytest.param(*family, id=family[0], marks=[] if family[0] in QUICK else [pytest.mark.slow]) for family in all_families()
]


@pytest.mark.filterwarnings("ignore:save_inference_model")
@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_family(tmp_path, name, module, variant):
    folder = str(tmp_path)
    with fluid.scope_guard(fluid.Scope()):
        feed = save(folder, module, variant)
        before = size(fluid.io.load_inference_model(folder, fluid.Executor())[0])
    work = compare(folder, feed)
    assert (before, size(work.program), work.counts()) == FIRED[name]


def test_every_pass_of_the_pipelines_is_there():
    names = {*pipelines.INFER, *pipelines.FLUID_ONEDNN, *pipelines.EXPORT, *pipelines.PLAN}
    assert all(callable(find(name)) for name in names)


def test_most_passes_fire_on_real_models():
    fired = {name for *_, counts in FIRED.values() for name in counts}
    # these fire in served_programs.py
    rare = {"set_is_test", "fuse_layer_norm", "fuse_seqpool_concat", "fuse_seqexpand_concat_fc", "fuse_attention_lstm"}
    rare |= {"pack_bigru", "fuse_bigru_tagger"}  # wide layers alone: test_pack_bigru.py, test_fuse_bigru_tagger.py
    # and these in test_fuse_activations.py and tests/onnx/test_quantized.py
    rare |= {"fuse_activations", "fold_dequantize", "fuse_quantize_pairs"}
    assert set(pipelines.INFER) - fired == rare
