import numpy as np
import pytest
from one_op import numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import AttributeTypeError, EnforceNotMet, ShapeError

RNG = np.random.RandomState(23)


def randn(*shape):
    return RNG.randn(*shape)


def linear_matrix(size, out, align_corners, align_mode):
    """[out, size]: bilinear interpolation along one axis, by its definition."""
    matrix = np.zeros((out, size))
    for i in range(out):
        if align_corners:
            at = i * (size - 1) / (out - 1) if out > 1 else 0.0
        elif out == 1:
            at = 0.0
        else:
            at = i * size / out if align_mode else max((i + 0.5) * size / out - 0.5, 0.0)
        low = min(int(at), size - 1)
        high = min(low + 1, size - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, high] += at - low
    return matrix


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("align_mode", [0, 1])
@pytest.mark.parametrize("size", [(7, 9), (2, 3), (1, 5), (4, 5)])
def test_bilinear_is_its_definition(align_corners, align_mode, size):
    x = randn(2, 3, 4, 5)
    attrs = {"out_h": size[0], "out_w": size[1], "align_corners": align_corners, "align_mode": align_mode}
    rows = linear_matrix(4, size[0], align_corners, align_mode)
    columns = linear_matrix(5, size[1], align_corners, align_mode)
    want = np.einsum("ih,nchw,jw->ncij", rows, x, columns)
    np.testing.assert_allclose(run_op("bilinear_interp", {"X": x}, attrs)["Out"], want, atol=1e-6)
    numeric_grad_check("bilinear_interp", {"X": x[:1, :1]}, attrs, wrt=("X",))


@pytest.mark.parametrize("op", ["nearest_interp", "bicubic_interp"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(6, 7), (1, 2), (3, 4)])
def test_gradients_of_other_interpolations(op, align_corners, size):
    attrs = {"out_h": size[0], "out_w": size[1], "align_corners": align_corners}
    numeric_grad_check(op, {"X": randn(1, 1, 3, 4)}, attrs, wrt=("X",))


def test_the_size_comes_from_the_strongest_source():
    x = randn(1, 1, 4, 6)
    attrs = {"out_h": 3, "out_w": 3, "align_corners": False}
    assert run_op("nearest_interp", {"X": x}, attrs)["Out"].shape == (1, 1, 3, 3)
    assert run_op("nearest_interp", {"X": x}, {**attrs, "scale": 0.5})["Out"].shape == (1, 1, 2, 3)
    sized = {"X": x, "OutSize": np.array([5, 2], "int32")}
    assert run_op("nearest_interp", sized, {**attrs, "scale": 0.5})["Out"].shape == (1, 1, 5, 2)
    listed = {**sized, "SizeTensor": [np.array([7], "int32"), np.array([8], "int32")]}
    assert run_op("nearest_interp", listed, attrs)["Out"].shape == (1, 1, 7, 8)
    with pytest.raises(EnforceNotMet, match="must be positive"):
        run_op("nearest_interp", {"X": x}, {"out_h": 0, "out_w": 0})


def test_the_identity_grid_reads_the_image():
    x, theta = randn(2, 3, 4, 5), np.tile([[1.0, 0, 0], [0, 1, 0]], (2, 1, 1))
    grid = run_op("affine_grid", {"Theta": theta}, {"output_shape": [2, 3, 4, 5]}, ("Output",))["Output"]
    np.testing.assert_allclose(run_op("grid_sampler", {"X": x, "Grid": grid}, {}, ("Output",))["Output"], x, atol=1e-10)
    numeric_grad_check("affine_grid", {"Theta": randn(1, 2, 3)}, {"output_shape": [1, 1, 2, 3]}, ("Output",), wrt=("Theta",))
    ins = {"X": randn(1, 1, 3, 3), "Grid": RNG.uniform(-0.9, 0.9, (1, 2, 2, 2))}
    numeric_grad_check("grid_sampler", ins, {}, ("Output",), wrt=("X", "Grid"))


def test_match_matrix_tensor_pairs_sequences():
    ins = {"X": randn(3, 2), "Y": randn(4, 2), "W": randn(2, 2, 2)}
    lods = {"X": [[1, 2]], "Y": [[3, 1]]}
    got = run_op("match_matrix_tensor", ins, {"dim_t": 2}, ("Out", "Tmp"), lods=lods)
    want = np.einsum("ad,dte,be->tab", ins["X"][1:], ins["W"], ins["Y"][3:])
    np.testing.assert_allclose(got["Out"][6:].ravel(), want.ravel(), atol=1e-10)
    assert got.lods["Out"] == [[6, 4]]
    numeric_grad_check("match_matrix_tensor", ins, {"dim_t": 2}, ("Out", "Tmp"), wrt=("X", "Y", "W"), lods=lods)


def test_similarity_focus_takes_each_row_and_column_once():
    x = RNG.rand(2, 3, 4, 5)
    mask = run_op("similarity_focus", {"X": x}, {"axis": 1, "indexes": [1]})["Out"]
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].sum(2) == 1).all() and mask[:, 0].sum() == 8
    best = x[0, 1].argmax()
    assert mask[0, 0].ravel()[best] == 1


def test_tree_conv_of_a_single_node_uses_the_top_filter():
    nodes, weight = randn(1, 1, 3), randn(3, 3, 2, 2)
    edges = np.zeros((1, 1, 2), "int32")
    out = run_op("tree_conv", {"NodesVector": nodes, "EdgeSet": edges, "Filter": weight}, {"max_depth": 2})["Out"]
    np.testing.assert_allclose(out[0, 0], np.einsum("f,fom->om", nodes[0, 0], weight[:, 2]), atol=1e-10)


@pytest.mark.parametrize(
    ("op", "ins", "attrs", "error", "words"),
    [
        ("bilinear_interp", {"X": randn(2, 3, 4)}, {"out_h": 2, "out_w": 2}, ShapeError, "4 dimensions"),
        ("bilinear_interp", {"X": randn(1, 2, 3, 4)}, {"align_mode": 3}, AttributeTypeError, "align_mode"),
        ("similarity_focus", {"X": randn(1, 2, 3, 4)}, {"axis": 0, "indexes": [0]}, AttributeTypeError, "1, 2 or 3"),
        ("similarity_focus", {"X": randn(1, 2, 3, 4)}, {"axis": 1, "indexes": [5]}, ShapeError, "below 2"),
    ],
)
def test_wrong_inputs_are_refused_when_built(op, ins, attrs, error, words):
    with pytest.raises(error, match=words):
        run_op(op, ins, attrs)


def test_grid_sampler_knows_its_size_by_the_image():
    with fluid.program_guard(fluid.Program(), fluid.Program()):
        theta = fluid.data("theta", [-1, 2, 3])
        image = fluid.data("image", [-1, 3, 8, 6])
        assert fluid.layers.grid_sampler(image, fluid.layers.affine_grid(theta, [4, 3, 8, 6])).shape == (-1, 3, 8, 6)
        grid = fluid.data("grid", [-1, 8, 6, 2])
        assert fluid.layers.grid_sampler(fluid.data("any", [-1, 3, -1, -1]), grid).shape == (-1, 3, 8, 6)
