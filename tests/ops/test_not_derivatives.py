"""Gradients of 1.8.5 that are not derivatives: what they are by recorded numbers, and where they are slopes after all."""

import os

import numpy as np
import pytest
from test_numeric_gradient import CHECK, GOLDEN, Case, as_float64

import millstream.fluid as fluid


def recorded(op):
    """[(case, feeds, weights of the objective, {variable: gradient of 1.8.5})]"""
    document, arrays = CHECK.load_op(os.path.join(GOLDEN, "cases", f"{op}.json"))
    found = []
    for case in document["cases"]:
        if case.get("grad"):
            feeds, weights = CHECK.case_inputs(case, arrays)
            found.append((case, feeds, weights, {w["name"]: arrays[w["key"]] for w in case["grad"]["wrt"]}))
    return found


def cvm(x, out, attrs):
    """The first two columns of X's are CVM's values: shows and clicks for a table, whatever the objective."""
    return {"X_0": np.concatenate([x["CVM_0"], out], 1)}


def data_norm(x, out, attrs):
    """The statistics get the batch's own counts and sums, which an optimizer adds up."""
    rows, size = x["X_0"], x["BatchSize_0"]
    means, scales = x["BatchSum_0"] / size, np.sqrt(size / x["BatchSquareSum_0"])
    square = ((rows - means) ** 2).sum(0) + len(rows) * attrs["epsilon"]
    given = {"BatchSize_0": np.full_like(size, len(rows)), "BatchSum_0": rows.sum(0), "BatchSquareSum_0": square}
    if not attrs.get("enable_scale_and_shift"):
        return {"X_0": out * scales, **given}
    normal = (rows - means) * scales
    return {"X_0": out * scales * x["scalew_0"], "scalew_0": (out * normal).sum(0), "bias_0": out.sum(0), **given}


def scatter(x, out, attrs):
    """X's is Out's also at the rows that Updates replaced."""
    return {"X_0": out, "Updates_0": out[x["Ids_0"]]}


def soft_relu(x, out, attrs):
    """The mask is of |Out|, not of |X|, and beyond the threshold the clipped logistic is not used."""
    limit = attrs.get("threshold", 40.0)
    y = np.log1p(np.exp(np.clip(x["X_0"], -limit, limit)))
    return {"X_0": out * (1 - np.exp(-y)) * (np.abs(y) < limit)}


def spectral_norm(x, out, attrs):
    """The second term multiplies elementwise by u v^T, where the derivative has the inner product of dOut and W."""
    weight = np.moveaxis(x["Weight_0"], attrs["dim"], 0)
    matrix, u, v = weight.reshape(len(weight), -1), x["U_0"], x["V_0"]
    for _ in range(attrs["power_iters"]):
        v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
        u = matrix @ v / np.linalg.norm(matrix @ v)
    sigma = u @ matrix @ v
    d = np.moveaxis(out, attrs["dim"], 0).reshape(matrix.shape)
    found = d / sigma - matrix.sum() / sigma**2 * d * np.outer(u, v)
    return {"Weight_0": np.moveaxis(found.reshape(weight.shape), 0, attrs["dim"])}


FORMULAS = {f.__name__: f for f in (cvm, data_norm, scatter, soft_relu, spectral_norm)}


@pytest.mark.parametrize("op", sorted(FORMULAS))
def test_what_the_gradient_of_1_8_5_is(op):
    cases = recorded(op)
    assert cases
    for case, feeds, weights, gradients in cases:
        x = {n: f["value"] for n, f in feeds.items()}
        expected = FORMULAS[op](x, next(iter(weights.values())), case["ops"][0]["attrs"])
        assert set(expected) == set(gradients)
        for name, values in gradients.items():
            np.testing.assert_allclose(values, expected[name], rtol=2e-4, atol=2e-5, err_msg=f"{case['id']} {name}")


# Where the same gradients are derivatives: variable -> which of its entries.
EVERYWHERE = np.s_[...]
SLOPES = {
    "cvm": {"X_0": np.s_[:, 2:]},
    "data_norm": {"X_0": EVERYWHERE, "scalew_0": EVERYWHERE, "bias_0": EVERYWHERE},
    "scatter": {"Updates_0": EVERYWHERE},
    "soft_relu": {"X_0": EVERYWHERE},
    "tree_conv": {"Filter_0": EVERYWHERE},
}


@pytest.mark.parametrize("op", sorted(SLOPES))
def test_the_part_that_is_a_slope(op):
    compared = 0
    for original, feeds, weights, _ in recorded(op):
        case = Case(*as_float64(original, feeds, weights))
        if op == "soft_relu":  # X and Out below the threshold
            case.feeds["X_0"]["value"] = np.linspace(-1.5, 1.5, 18)[: feeds["X_0"]["value"].size].reshape(
                feeds["X_0"]["value"].shape
            )
        found = dict(zip(case.grads, case.run(case.feeds, list(case.grads.values()))))
        for name, part in SLOPES[op].items():
            for index in map(tuple, np.argwhere(_chosen(found[name], part)) if name in found else ()):
                slope = case.slope(name, index)
                if slope is not None:
                    assert found[name][index] == pytest.approx(slope, rel=1e-4, abs=1e-5), (original["id"], name, index)
                    compared += 1
    assert compared > 3


def _chosen(values, part):
    chosen = np.zeros(values.shape, bool)
    chosen[part] = True
    return chosen


def test_tree_conv_differentiates_by_a_filter_read_in_another_order():
    """NodesVector's gradient is the slope under Filter [F, 3, O*M] whose memory is read as [F, O*M, 3]."""
    original, feeds, weights, gradients = recorded("tree_conv")[0]
    case = Case(*as_float64(original, feeds, weights))
    w = case.feeds["Filter_0"]["value"]
    case.feeds["Filter_0"]["value"] = w.reshape(len(w), -1, 3).swapaxes(1, 2).reshape(w.shape).copy()
    slopes = np.zeros(gradients["NodesVector_0"].shape)
    for index in np.ndindex(*slopes.shape):
        slopes[index] = case.slope("NodesVector_0", index)
    np.testing.assert_allclose(gradients["NodesVector_0"], slopes, rtol=1e-4, atol=1e-5)


def test_pyramid_hash_moves_its_table_by_the_slope():
    """There is no gradient variable: the gradient operator itself takes lr * slope from W."""
    attrs = {"num_emb": 4, "space_len": 6, "pyramid_layer": 2, "rand_len": 2, "is_training": 1, "use_filter": False}
    main, table, step = fluid.Program(), np.random.RandomState(0).rand(8, 1), 1e-6
    block = main.global_block()
    w = block.create_parameter(name="w", shape=[8, 1], dtype="float64")
    x = block.create_var(name="x", shape=[-1, 1], dtype="int32", lod_level=1)
    outs = {s: block.create_var(name=s) for s in ("Out", "DropPos", "X_Temp_Out")}
    block.append_op("pyramid_hash", inputs={"X": x, "W": w}, outputs=outs, attrs={**attrs, "lr": 0.5})
    with fluid.program_guard(main):
        total = fluid.layers.reduce_sum(fluid.layers.sin(outs["Out"]))
    forward = main.clone(for_test=True)
    fluid.backward.append_backward(total)
    exe, feed = fluid.Executor(), {"x": fluid.create_lod_tensor(np.array([[3], [1], [4], [1]], "int32"), [[3, 1]], None)}

    def run(program, values):
        scope = fluid.Scope()
        scope.var("w").get_tensor().set(values, fluid.CPUPlace())
        found = exe.run(program, feed=feed, fetch_list=[total.name], scope=scope)[0].item()
        return found, np.array(scope.find_var("w").get_tensor())

    moves = np.eye(8)[:, :, None] * step
    slopes = np.array([(run(forward, table + m)[0] - run(forward, table - m)[0]) / (2 * step) for m in moves])
    np.testing.assert_allclose(run(main, table)[1][:, 0], table[:, 0] - 0.5 * slopes, rtol=1e-6)
    assert np.abs(slopes).max() > 0.1
