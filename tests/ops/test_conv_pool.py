import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import numeric_grad_check, run_op

from millstream.errors import AttributeTypeError, ShapeError

RNG = np.random.RandomState(21)


def randn(*shape):
    return RNG.randn(*shape)


def cross_correlate(x, w, stride, pad, dilation, groups):
    """conv2d written out, one output element at a time; pad is (top, bottom, left, right)."""
    n, _, h, width = x.shape
    o, per, kh, kw = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), pad[:2], pad[2:]))
    oh = (h + pad[0] + pad[1] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + pad[2] + pad[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((n, o, oh, ow))
    for k in range(o):
        first = k // (o // groups) * per
        for i in range(oh):
            for j in range(ow):
                rows = slice(i * stride[0], i * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
                columns = slice(j * stride[1], j * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
                out[:, k, i, j] = (padded[:, first : first + per, rows, columns] * w[k]).sum((1, 2, 3))
    return out


two = st.tuples(st.integers(1, 2), st.integers(1, 2))


@settings(max_examples=25, deadline=None)
@given(two, two, st.lists(st.integers(0, 2), min_size=4, max_size=4), st.sampled_from([1, 2]), st.booleans())
def test_conv2d_is_the_written_out_sum(stride, dilation, pad, groups, last):
    x, w = randn(2, 4, 7, 6), randn(4, 4 // groups, 3, 2)
    given_x = x.transpose(0, 2, 3, 1) if last else x
    attrs = {"strides": list(stride), "paddings": pad, "dilations": list(dilation), "groups": groups}
    attrs["data_format"] = "NHWC" if last else "NCHW"
    got = run_op("conv2d", {"Input": given_x, "Filter": w}, attrs, ("Output",))
    out = got["Output"].transpose(0, 3, 1, 2) if last else got["Output"]
    np.testing.assert_allclose(out, cross_correlate(x, w, stride, pad, dilation, groups), atol=1e-10)
    assert tuple(got.inferred["Output"]) == got["Output"].shape


CONV = {"Input": randn(1, 4, 4, 5), "Filter": randn(4, 2, 3, 2)}
GRADS = {
    "conv2d": (CONV, {"strides": [2, 1], "paddings": [1, 0, 2, 1], "groups": 2}),
    "conv2d bias": ({**CONV, "Bias": randn(4)}, {"groups": 2, "use_mkldnn": True}),
    "depthwise_conv2d": ({"Input": randn(1, 3, 4, 4), "Filter": randn(3, 1, 2, 2)}, {"groups": 3}),
    "conv2d_transpose": (
        {"Input": randn(1, 4, 3, 3), "Filter": randn(4, 2, 3, 2), "Bias": randn(4)},
        {"strides": [2, 2], "paddings": [1, 0, 0, 1], "groups": 2, "output_size": [7, 6], "use_mkldnn": True},
    ),
    "conv3d": (
        {"Input": randn(1, 2, 3, 3, 3), "Filter": randn(2, 2, 2, 2, 2)},
        {"padding_algorithm": "SAME", "strides": [2, 1, 1]},
    ),
    "conv3d_transpose": ({"Input": randn(1, 2, 2, 2, 2), "Filter": randn(2, 2, 2, 2, 2)}, {"strides": [2, 1, 1]}),
    "deformable_conv": (
        {"Input": randn(1, 2, 4, 4), "Offset": randn(1, 8, 3, 3), "Mask": randn(1, 4, 3, 3), "Filter": randn(2, 2, 2, 2)},
        {},
    ),
}


@pytest.mark.parametrize("case", GRADS)
def test_gradients_of_convolutions(case):
    ins, attrs = GRADS[case]
    numeric_grad_check(case.split()[0], ins, attrs, ("Output",), wrt=tuple(ins))


@pytest.mark.parametrize("op", ["conv2d", "conv2d_transpose"])
def test_bias_and_activation_count_with_use_mkldnn_only(op):
    """As in 1.8.5, whose other kernels look at Input and Filter alone."""
    ins = {"Input": randn(1, 2, 3, 3), "Filter": randn(2, 2, 2, 2)}
    biased, fused = {**ins, "Bias": np.array([-50.0, 50.0])}, {"fuse_relu": True}
    plain = run_op(op, ins, {}, ("Output",))["Output"]
    ignored = run_op(op, biased, fused, ("Output",), wrt=("Input", "Filter", "Bias"))
    np.testing.assert_array_equal(ignored["Output"], plain)
    assert not ignored.grads["Bias"].any()
    got = run_op(op, biased, {**fused, "use_mkldnn": True}, ("Output",))["Output"]
    np.testing.assert_allclose(got, np.maximum(plain + biased["Bias"][:, None, None], 0), rtol=1e-12)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    "attrs",
    [
        {"ksize": [3, 2], "strides": [2, 2], "paddings": [1, 1]},
        {"ksize": [3, 2], "strides": [2, 2], "paddings": [0, 1], "ceil_mode": True},
        {"ksize": [3, 3], "strides": [2, 2], "paddings": [0, 1, 2, 1], "exclusive": False},
        {"ksize": [1, 1], "global_pooling": True},
        {"ksize": [2, 3], "padding_algorithm": "SAME", "strides": [2, 1], "data_format": "NHWC"},
    ],
)
def test_gradients_of_pooling(kind, attrs):
    numeric_grad_check("pool2d", {"X": randn(1, 5, 6, 2)}, {"pooling_type": kind, **attrs}, wrt=("X",))


def test_average_with_windows_over_the_edge_counts_real_elements_only():
    x = np.ones((1, 1, 5, 5))
    attrs = {"pooling_type": "avg", "ksize": [3, 3], "strides": [2, 2], "paddings": [1, 1], "ceil_mode": True}
    np.testing.assert_allclose(run_op("pool2d", {"X": x}, attrs)["Out"], 1.0)
    included = run_op("pool2d", {"X": x}, {**attrs, "exclusive": False})["Out"]
    assert included[0, 0, 0, 0] == pytest.approx(4 / 9)


def test_max_pool_with_index_points_at_its_maxima():
    x = randn(2, 3, 6, 5)
    got = run_op(
        "max_pool2d_with_index", {"X": x}, {"ksize": [3, 3], "strides": [2, 2], "paddings": [2, 1]}, ("Out", "Mask")
    )
    picked = np.take_along_axis(x.reshape(2, 3, -1), got["Mask"].reshape(2, 3, -1).astype(np.int64), 2)
    np.testing.assert_array_equal(picked.reshape(got["Out"].shape), got["Out"])
    numeric_grad_check("max_pool2d_with_index", {"X": x[:1]}, {"ksize": [2, 2]}, ("Out", "Mask"), of="Out", wrt=("X",))


def test_unpool_puts_back_what_pooling_took():
    x = RNG.rand(1, 2, 4, 4) + 1
    pooled = run_op("max_pool2d_with_index", {"X": x}, {"ksize": [2, 2], "strides": [2, 2]}, ("Out", "Mask"))
    attrs = {"ksize": [2, 2], "strides": [2, 2], "unpooling_type": "max"}
    out = run_op("unpool", {"X": pooled["Out"], "Indices": pooled["Mask"]}, attrs)["Out"]
    assert ((out == 0) | (out == x)).all() and (out != 0).sum() == pooled["Out"].size


def test_unknown_sizes_stay_unknown():
    ins = {"Input": randn(2, 3, 8, 8), "Filter": randn(4, 3, 3, 3)}
    got = run_op("conv2d", ins, {"strides": [2, 2]}, ("Output",), shapes={"Input": [-1, 3, -1, 8]})
    assert tuple(got.inferred["Output"]) == (-1, 4, -1, 3) and got["Output"].shape == (2, 4, 3, 3)
    got = run_op("pool2d", {"X": randn(2, 3, 8, 8)}, {"pooling_type": "max", "ksize": [2, 2]}, shapes={"X": [-1, 3, 8, -1]})
    assert tuple(got.inferred["Out"]) == (-1, 3, 7, -1)


X, W = randn(1, 4, 5, 5), randn(2, 4, 3, 3)


@pytest.mark.parametrize(
    ("op", "ins", "attrs", "error", "words"),
    [
        ("conv2d", {"Input": X, "Filter": randn(2, 3, 3, 3)}, {}, ShapeError, "4 channels"),
        ("conv2d", {"Input": X, "Filter": W}, {"groups": 4}, ShapeError, "groups 4"),
        ("conv2d", {"Input": X[0], "Filter": W}, {}, ShapeError, "4 .2-D. or 5"),
        ("conv2d", {"Input": X, "Filter": W}, {"strides": [0, 1]}, ShapeError, "strides must be 2 positive"),
        ("conv2d", {"Input": X, "Filter": W}, {"paddings": [1, 1, 1]}, ShapeError, "2 or 4 numbers"),
        ("conv2d", {"Input": X, "Filter": randn(2, 4, 7, 3)}, {}, ShapeError, "does not fit"),
        ("conv2d", {"Input": X, "Filter": W}, {"data_format": "CHWN"}, AttributeTypeError, "data_format"),
        ("conv2d_transpose", {"Input": X, "Filter": W}, {}, ShapeError, "takes 2"),
        (
            "conv2d_transpose",
            {"Input": X, "Filter": randn(4, 2, 3, 3)},
            {"output_size": [9, 9]},
            ShapeError,
            r"must be in \[7, 8\)",
        ),
    ],
)
def test_wrong_convolutions_are_refused_when_built(op, ins, attrs, error, words):
    with pytest.raises(error, match=words):
        run_op(op, ins, attrs, ("Output",))


@pytest.mark.parametrize(
    ("attrs", "error", "words"),
    [
        ({"pooling_type": "median", "ksize": [2, 2]}, AttributeTypeError, "max or avg"),
        ({"pooling_type": "max", "ksize": [9, 2]}, ShapeError, "does not fit"),
        ({"pooling_type": "max", "ksize": [2]}, ShapeError, "ksize must be 2"),
    ],
)
def test_wrong_pooling_is_refused_when_built(attrs, error, words):
    with pytest.raises(error, match=words):
        run_op("pool2d", {"X": X}, attrs)


def test_patches_and_rows():
    attrs = {"kernel_sizes": [3, 2], "strides": [2, 1], "paddings": [1, 0, 0, 1], "dilations": [1, 2]}
    numeric_grad_check("unfold", {"X": randn(1, 2, 5, 4)}, attrs, ("Y",), wrt=("X",))
    seq = run_op("im2sequence", {"X": randn(2, 1, 4, 4)}, {"kernels": [2, 2], "strides": [2, 2]})
    assert seq["Out"].shape == (8, 4) and seq.lods["Out"] == [[4, 4]]
    lods = {"X": [[1, 0, 4]]}
    numeric_grad_check("row_conv", {"X": randn(5, 2), "Filter": randn(3, 2)}, {}, wrt=("X", "Filter"), lods=lods)
