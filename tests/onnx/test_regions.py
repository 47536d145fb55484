"""Regions and moved windows as ONNX against the operators here, on drawn data: forms that the recorded cases have not."""

import numpy as np
import pytest
from golden import session

import millstream.fluid as fluid
from millstream import onnx as ms_onnx

layers = fluid.layers


def check(build, feed, lengths=None):
    """The ONNX model gives what the Program gives; `lengths`: of fed variables with LoD."""
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        outs = build()
    scope = fluid.Scope()
    for param in main.all_parameters():
        scope.var(param.name).get_tensor().set(np.random.randn(*param.shape).astype("float32"), fluid.CPUPlace())
    lengths = lengths or {}
    given = {k: fluid.create_lod_tensor(v, [lengths[k]], fluid.CPUPlace()) if k in lengths else v for k, v in feed.items()}
    with fluid.scope_guard(scope):
        want = fluid.Executor().run(main, feed=given, fetch_list=outs, return_numpy=False)
    model = ms_onnx.export(main, list(feed), [o.name for o in outs], scope)
    ran = session(model)
    arrays = feed | {f"{k}.lod0": np.concatenate([[0], np.cumsum(v)]).astype("int64") for k, v in lengths.items()}
    found = dict(zip([o.name for o in ran.get_outputs()], ran.run(None, {i.name: arrays[i.name] for i in ran.get_inputs()})))
    for out, value in zip(outs, want):
        np.testing.assert_allclose(found[out.name], np.array(value), rtol=1e-4, atol=1e-4)
        for level, offsets in enumerate(value.lod()):
            assert found[f"{out.name}.lod{level}"].tolist() == list(offsets)


def boxes(count, *lead):
    ends = np.sort(np.random.uniform(-3, 30, (*lead, count, 2, 2)), axis=-2)
    return ends.reshape(*lead, count, 4).astype("float32")


@pytest.mark.parametrize(
    "form",
    [
        {"use_gaussian": True, "gaussian_sigma": 2.0, "background_label": 1, "normalized": False, "nms_top_k": 7,
         "keep_top_k": 5, "post_threshold": 0.2, "score_threshold": 0.3},
        {"background_label": -1, "nms_top_k": -1, "keep_top_k": -1, "post_threshold": 0.1, "score_threshold": 0.2},
        {"background_label": 0, "nms_top_k": 100, "keep_top_k": 10, "post_threshold": 0.0, "score_threshold": 0.9},
    ],
)  # fmt: skip
def test_matrix_nms(form):
    def build():
        given = fluid.data("boxes", [None, 20, 4]), fluid.data("scores", [None, 4, 20])
        return list(layers.matrix_nms(*given, return_index=True, **form))

    check(build, {"boxes": boxes(20, 3), "scores": np.random.rand(3, 4, 20).astype("float32")})


@pytest.mark.parametrize("images,chunk,groups,parts", [(4, 2, 1, 1), (3, 2, 2, 2), (2, 64, 1, 2), (4, 4, 2, 1)])
@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_conv(images, chunk, groups, parts, modulated):
    """Images of a chunk lie interleaved as in Fluid, whatever the batch is."""

    def build():
        x, offset = fluid.data("x", [None, 4, 7, 9]), fluid.data("offset", [None, 18 * parts, 4, 5])
        mask = fluid.data("mask", [None, 9 * parts, 4, 5]) if modulated else None
        out = layers.deformable_conv(
            x, offset, mask, 6, 3, stride=2, padding=1, groups=groups, deformable_groups=parts, im2col_step=chunk,
            modulated=modulated,
        )  # fmt: skip
        return [out]

    feed = {
        "x": np.random.randn(images, 4, 7, 9).astype("float32"),
        "offset": (np.random.randn(images, 18 * parts, 4, 5) * 2).astype("float32"),
    }
    if modulated:
        feed["mask"] = np.random.rand(images, 9 * parts, 4, 5).astype("float32")
    check(build, feed)


def test_region_pools():
    """Regions beyond the image and without area too."""
    rois = boxes(6)
    rois[0], rois[1, 2:] = [40, 40, 50, 50], rois[1, :2]

    def build():
        x, given = fluid.data("x", [None, 12, 15, 17]), fluid.data("rois", [None, 4], lod_level=1)
        return [layers.psroi_pool(x, given, 3, 0.5, 2, 2), layers.prroi_pool(x, given, 0.5, 2, 3)]

    check(build, {"x": np.random.randn(2, 12, 15, 17).astype("float32"), "rois": rois}, {"rois": [2, 4]})
