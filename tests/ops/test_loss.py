import numpy as np
import pytest
from one_op import numeric_grad_check, run_op

from millstream.errors import InvalidProgramError, OperatorError, ShapeError

RNG = np.random.RandomState(8)
LABEL = np.array([[1], [0], [3]])


def randn(*shape):
    return RNG.randn(*shape)


def inside(*shape):
    return RNG.uniform(0.1, 0.9, shape)


CASES = {
    "cross_entropy": ({"X": inside(3, 4), "Label": LABEL}, {}, ("Y",), "Y", ("X",)),
    "cross_entropy soft": ({"X": inside(3, 4), "Label": inside(3, 4)}, {"soft_label": True}, ("Y",), "Y", ("X",)),
    "cross_entropy2": ({"X": inside(3, 4), "Label": LABEL}, {}, ("Y", "XShape", "MatchX"), "Y", ("X",)),
    "softmax_with_cross_entropy": ({"Logits": randn(3, 4), "Label": LABEL}, {}, ("Softmax", "Loss"), "Loss", ("Logits",)),
    "softmax_with_cross_entropy axis": (
        {"Logits": randn(2, 4, 3), "Label": RNG.randint(0, 4, (2, 1, 3))},
        {"axis": 1},
        ("Softmax", "Loss"),
        "Loss",
        ("Logits",),
    ),
    "sigmoid_cross_entropy_with_logits": (
        {"X": randn(2, 3), "Label": np.array([[0, 1, -1.0], [1, 0.3, 0]])},
        {"ignore_index": -1, "normalize": True},
        ("Out",),
        "Out",
        ("X",),
    ),
    "nll_loss": ({"X": randn(3, 4), "Label": LABEL[:, 0], "Weight": inside(4)}, {}, ("Out", "Total_weight"), "Out", ("X",)),
    "bpr_loss": ({"X": randn(3, 4), "Label": LABEL}, {}, ("Y",), "Y", ("X",)),
    "kldiv_loss": ({"X": randn(3, 4), "Target": inside(3, 4)}, {"reduction": "batchmean"}, ("Loss",), "Loss", ("X",)),
    "bce_loss": ({"X": inside(3, 2), "Label": inside(3, 2)}, {}, ("Out",), "Out", ("X",)),
    "log_loss": ({"Predicted": inside(3, 1), "Labels": inside(3, 1)}, {"epsilon": 1e-4}, ("Loss",), "Loss", ("Predicted",)),
    "hinge_loss": ({"Logits": randn(4, 1), "Labels": np.array([[1.0], [0], [1], [0]])}, {}, ("Loss",), "Loss", ("Logits",)),
    "huber_loss": ({"X": randn(4, 1), "Y": randn(4, 1)}, {"delta": 0.7}, ("Residual", "Out"), "Out", ("X", "Y")),
    "modified_huber_loss": (
        {"X": randn(4, 1) * 2, "Y": np.array([[1.0], [0], [1], [0]])},
        {},
        ("IntermediateVal", "Out"),
        "Out",
        ("X",),
    ),
    "smooth_l1_loss": (
        {"X": randn(2, 3), "Y": randn(2, 3), "InsideWeight": inside(2, 3), "OutsideWeight": inside(2, 3)},
        {"sigma": 1.5},
        ("Diff", "Out"),
        "Out",
        ("X", "Y"),
    ),
    "margin_rank_loss": (
        {"Label": np.array([[1.0], [-1], [1]]), "X1": randn(3, 1), "X2": randn(3, 1)},
        {"margin": 0.1},
        ("Activated", "Out"),
        "Out",
        ("X1", "X2"),
    ),
    "rank_loss": (
        {"Label": np.array([[1.0], [0], [1]]), "Left": randn(3, 1), "Right": randn(3, 1)},
        {},
        ("Out",),
        "Out",
        ("Left", "Right"),
    ),
    "teacher_student_sigmoid_loss": (
        {"X": randn(5, 1), "Label": np.array([[-2.0], [-1], [0.4], [1.3], [0]])},
        {},
        ("Y",),
        "Y",
        ("X",),
    ),
    "sigmoid_focal_loss": (
        {"X": randn(4, 3), "Label": np.array([[0], [1], [3], [-1]], "int32"), "FgNum": np.array([2], "int32")},
        {"gamma": 1.5},
        ("Out",),
        "Out",
        ("X",),
    ),
    "center_loss": (
        {"X": randn(3, 2), "Label": LABEL, "Centers": randn(4, 2), "CenterUpdateRate": inside(1)},
        {"cluster_num": 4, "need_update": True},
        ("CentersOut", "SampleCenterDiff", "Loss"),
        "Loss",
        ("X",),
    ),
    "hierarchical_sigmoid": (
        {"X": randn(3, 2), "W": randn(6, 2), "Label": np.array([[1], [3], [0]]), "Bias": randn(6, 1)},
        {"num_classes": 7},
        ("Out", "PreOut", "W_Out"),
        "Out",
        ("X", "W", "Bias"),
    ),
    "nce": (
        {"Input": randn(3, 2), "Label": LABEL, "Weight": randn(5, 2), "Bias": randn(5, 1), "SampleWeight": inside(3, 1)},
        {"num_total_classes": 5, "num_neg_samples": 2, "sampler": 1, "custom_neg_classes": [0, 2]},
        ("Cost", "SampleLogits", "SampleLabels"),
        "Cost",
        ("Input", "Weight", "Bias"),
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradient(name):
    ins, attrs, outs, of, wrt = CASES[name]
    numeric_grad_check(name.split()[0], ins, attrs, outs, wrt=wrt, of=of)


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_row(name):
    """A batch of one, its first dim unknown while the Program is built."""
    ins, attrs, outs, of, _ = CASES[name]
    rows = next(iter(ins.values())).shape[0]
    one = {s: a[:1] if a.shape[0] == rows and s not in ("W", "Weight", "Bias", "Centers") else a for s, a in ins.items()}
    shapes = {s: [-1, *a.shape[1:]] for s, a in one.items() if a.shape != ins[s].shape}
    ran = run_op(name.split()[0], one, attrs, outs, shapes=shapes)
    got, inferred = ran[of].shape, ran.inferred[of]
    assert len(got) == len(inferred) and all(i in (g, -1) for g, i in zip(got, inferred))


def test_labels_outside_are_refused_and_ignored_ones_cost_nothing():
    x = inside(3, 4)
    label = np.array([[1], [-100], [3]])
    for op, slot, out in (("cross_entropy", "X", "Y"), ("softmax_with_cross_entropy", "Logits", "Loss")):
        outs = (out,) if op == "cross_entropy" else ("Softmax", out)
        assert run_op(op, {slot: x, "Label": label}, outs=outs)[out][1, 0] == 0
        with pytest.raises(OperatorError):
            run_op(op, {slot: x, "Label": np.array([[1], [4], [3]])}, outs=outs)


def test_a_class_can_be_the_ignored_one():
    x = inside(3, 4)
    ran = run_op("cross_entropy", {"X": x, "Label": LABEL}, {"ignore_index": 0}, ("Y",), wrt=("X",))
    assert ran["Y"][1, 0] == 0 and not ran.grads["X"][1].any() and ran.grads["X"][0].any()


def test_log_of_zero_is_cut():
    got = run_op("cross_entropy", {"X": np.array([[0.0, 1.0]], "float32"), "Label": np.array([[0]])}, outs=("Y",))["Y"]
    np.testing.assert_allclose(got, 1e20)


def test_softmax_gradient_of_ignored_rows_is_fluids():
    x, label = randn(3, 4), np.array([[1], [-100], [3]])
    ran = run_op(
        "softmax_with_cross_entropy", {"Logits": x, "Label": label}, {}, ("Softmax", "Loss"), wrt=("Logits",), of="Loss"
    )
    np.testing.assert_allclose(ran.grads["Logits"][1], ran["Softmax"][1])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nll_of_images(reduction):
    ins = {"X": randn(2, 3, 2, 2), "Label": RNG.randint(0, 3, (2, 2, 2))}
    numeric_grad_check("nll_loss", ins, {"reduction": reduction}, ("Out", "Total_weight"), wrt=("X",), of="Out")


def test_center_loss_moves_the_centers():
    x, centers = np.array([[1.0, 0.0], [3.0, 0.0]]), np.zeros((2, 2))
    ins = {"X": x, "Label": np.array([[1], [1]]), "Centers": centers, "CenterUpdateRate": np.array([0.5])}
    outs = ("CentersOut", "SampleCenterDiff", "Loss")
    got = run_op("center_loss", ins, {"cluster_num": 2, "need_update": True}, outs)["CentersOut"]
    np.testing.assert_allclose(got, [[0, 0], [0.5 * 4 / 3, 0]])


@pytest.mark.parametrize("sampler", [0, 1])
def test_nce_draws_classes_in_range(sampler):
    ins = {"Input": randn(50, 2), "Label": RNG.randint(0, 9, (50, 1)), "Weight": randn(9, 2)}
    attrs = {"num_total_classes": 9, "num_neg_samples": 20, "sampler": sampler, "seed": 3}
    drawn = run_op("nce", ins, attrs, ("Cost", "SampleLogits", "SampleLabels"))["SampleLabels"][:, 1:]
    assert drawn.min() == 0 and drawn.max() == (8 if sampler == 0 else 7)  # log-uniform leaves out the last, as in Fluid
    if sampler == 1:  # small classes come more often
        assert (drawn < 3).mean() > 0.5


def test_nce_custom_distribution():
    """The alias tables put everything on class 2."""
    ins = {
        "Input": randn(4, 2),
        "Label": np.zeros((4, 1), "int64"),
        "Weight": randn(4, 2),
        "CustomDistProbs": np.array([0, 0, 1, 0], "float32"),
        "CustomDistAlias": np.array([2, 2, 2, 2], "int32"),
        "CustomDistAliasProbs": np.zeros(4, "float32"),
    }
    attrs = {"num_total_classes": 4, "num_neg_samples": 3, "sampler": 2}
    drawn = run_op("nce", ins, attrs, ("Cost", "SampleLogits", "SampleLabels"))["SampleLabels"][:, 1:]
    assert (drawn == 2).all()
    del ins["CustomDistAlias"]
    with pytest.raises(InvalidProgramError, match="sampler 2 needs"):
        run_op("nce", ins, attrs, ("Cost",))


def test_sample_logits_draws_without_repeats():
    labels = np.array([[1, 3], [2, 0]])
    outs = ("Samples", "Probabilities", "LogitsDim", "LabelsDim", "SampledLogits", "SampledLabels")
    attrs = {"num_samples": 6, "seed": 5}
    ran = run_op(
        "sample_logits", {"Logits": randn(2, 20), "Labels": labels}, attrs, outs, wrt=("Logits",), of="SampledLogits"
    )
    samples = ran["Samples"]
    assert (samples[:, :2] == labels).all() and (samples[0, 2:] == samples[1, 2:]).all()
    assert len(set(samples[0, 2:].tolist())) == 6 and samples.max() < 20
    assert ran["SampledLabels"].tolist() == [[0, 1], [0, 1]]
    hits = np.array([[c in row[:2] for c in row[2:]] for row in samples.tolist()])
    assert ((ran["SampledLogits"][:, 2:] < -1e19) == hits).all()
    assert ran.grads["Logits"].sum() == samples.size


def test_sample_logits_probability_of_one_draw():
    """Log-uniform over all classes: log((c + 2) / (c + 1)) / log(classes + 1)."""
    outs = ("Samples", "Probabilities")
    ran = run_op(
        "sample_logits", {"Logits": randn(2, 9), "Labels": np.array([[8], [2]])}, {"num_samples": 1, "seed": 1}, outs
    )
    c = ran["Samples"]
    np.testing.assert_allclose(ran["Probabilities"], np.log((c + 2) / (c + 1)) / np.log(10), rtol=1e-6)


def test_hierarchical_sigmoid_custom_tree():
    ins = {
        "X": randn(3, 2),
        "W": randn(5, 2),
        "Label": np.array([[0], [1], [2]]),
        "PathTable": np.array([[0, 2, -1], [0, 1, 3], [0, 1, 4]]),
        "PathCode": np.array([[0, 0, -1], [1, 0, 0], [1, 1, 1]]),
        "Bias": randn(5, 1),
    }
    outs = ("Out", "PreOut", "W_Out")
    numeric_grad_check("hierarchical_sigmoid", ins, {"num_classes": 6}, outs, wrt=("X", "W", "Bias"))


@pytest.mark.parametrize(
    "op, ins, words",
    [
        ("cross_entropy", {"X": inside(3, 4), "Label": np.zeros((3, 4), "int64")}, "hard labels must have 1"),
        ("cross_entropy", {"X": inside(3, 4), "Label": np.zeros((2, 1), "int64")}, "must agree in dim 0"),
        ("cross_entropy", {"X": inside(3, 4), "Label": np.zeros(3, "int64")}, "same number of dims"),
        ("log_loss", {"Predicted": inside(3, 1), "Labels": inside(2, 1)}, "same shape"),
        ("smooth_l1_loss", {"X": inside(3, 2), "Y": inside(3, 2), "InsideWeight": inside(3, 2)}, "needs OutsideWeight"),
        ("nll_loss", {"X": inside(3, 2), "Label": np.zeros((3, 1), "int64")}, r"Label must be \[3\]"),
    ],
)
def test_refused(op, ins, words):
    attrs = {"epsilon": 1e-4} if op == "log_loss" else {}
    out = {"log_loss": "Loss", "smooth_l1_loss": "Out", "nll_loss": "Out"}.get(op, "Y")
    with pytest.raises(ShapeError, match=words):
        run_op(op, ins, attrs, (out,))


@pytest.mark.parametrize("rows, classes", [(2000, 19), (40_000, 1), (700, 127), (300, 128)])
def test_many_rows_of_few_classes(rows, classes):
    """The kernel over float32 rows against the general form, which float64 takes."""
    pytest.importorskip("numba")
    x, label, weights = randn(rows, classes) * 8, RNG.randint(0, classes, (rows, 1)), randn(rows, 1)
    x[5] = -200
    x[7, classes // 2] = -200
    runs = [
        run_op(
            "softmax_with_cross_entropy", {"Logits": x.astype(dtype), "Label": label}, {}, ("Softmax", "Loss"),
            wrt=("Logits",), weights=weights.astype(dtype), of="Loss",
        )
        for dtype in ("float32", "float64")
    ]  # fmt: skip
    for slot in ("Softmax", "Loss"):
        np.testing.assert_allclose(runs[0][slot], runs[1][slot], rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(runs[0].grads["Logits"], runs[1].grads["Logits"], rtol=2e-5, atol=2e-6)


def test_rank_loss_of_scores_far_apart_stays_finite():
    left = np.array([[174.0], [95.0], [-174.0]], "float32")
    got = run_op("rank_loss", {"Label": np.ones((3, 1), "float32"), "Left": left, "Right": np.zeros((3, 1), "float32")})
    np.testing.assert_allclose(got["Out"], [[0], [0], [174]], atol=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_kldiv_loss_of_an_empty_batch_is_nan(reduction):
    empty = np.zeros((0, 3), "float32")
    out = run_op("kldiv_loss", {"X": empty, "Target": empty}, {"reduction": reduction}, ("Loss",))["Loss"]
    assert out.shape == (1,) and np.isnan(out).all()
