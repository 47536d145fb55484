"""Passes that no family of tests/programs calls for, on programs that do: results stay, each fires as often as it must."""

import pytest
from firing import FIRED
from inference_models import compare
from served_programs import SERVED

import millstream.fluid as fluid
from millstream.passes import pipelines


@pytest.mark.parametrize("make", SERVED, ids=lambda make: make.__name__)
def test_served(tmp_path, make):
    main, startup, exe = fluid.Program(), fluid.Program(), fluid.Executor()
    with fluid.scope_guard(fluid.Scope()), fluid.program_guard(main, startup), fluid.unique_name.guard():
        feed, fetches = make()
        exe.run(startup)
        fluid.io.save_inference_model(str(tmp_path), list(feed), fetches, exe, main)
    counts = compare(str(tmp_path), feed).counts()
    assert {name: counts.get(name) for name in SERVED[make]} == SERVED[make]


def test_every_pass_for_inference_fires_somewhere():
    fired = {name for *_, counts in FIRED.values() for name in counts} | {n for counts in SERVED.values() for n in counts}
    # in test_fuse_activations.py, test_pack_bigru.py, test_fuse_bigru_tagger.py and tests/onnx/test_quantized.py
    elsewhere = {"fuse_activations", "pack_bigru", "fuse_bigru_tagger", "fold_dequantize", "fuse_quantize_pairs"}
    assert set(pipelines.INFER) <= fired | elsewhere
