"""ops/random: distributions, seeds, dropout."""

import numpy as np
import pytest
from many_outputs import build_op, run_op

import millstream.fluid as fluid
from millstream.errors import ShapeError

N = 40000


def draw(type, attrs):
    return np.asarray(run_op(type, {}, attrs, {"Out": 1})["Out"])


def test_moments():
    normal = draw("gaussian_random", {"shape": [N], "mean": 2.0, "std": 3.0})
    assert abs(normal.mean() - 2) < 0.1 and abs(normal.std() - 3) < 0.1
    cut = draw("truncated_gaussian_random", {"shape": [N], "mean": 1.0, "std": 2.0})
    assert cut.min() >= -3 and cut.max() <= 5 and abs(cut.mean() - 1) < 0.05 and abs(cut.std() - 0.8796 * 2) < 0.03
    flat = draw("uniform_random", {"shape": [N], "min": -1.0, "max": 3.0, "dtype": 6})
    assert flat.dtype == np.float64 and flat.min() >= -1 and flat.max() < 3 and abs(flat.mean() - 1) < 0.05
    ints = draw("randint", {"shape": [N], "low": -2, "high": 3})
    assert set(ints.tolist()) == {-2, -1, 0, 1, 2}
    assert sorted(draw("randperm", {"n": 100}).tolist()) == list(range(100))


def test_seeds():
    one = {"shape": [5], "seed": 3}
    np.testing.assert_array_equal(draw("uniform_random", one), draw("uniform_random", one))
    assert (draw("uniform_random", one) != draw("uniform_random", {"shape": [5], "seed": 4})).any()
    assert (draw("uniform_random", {"shape": [5]}) != draw("uniform_random", {"shape": [5]})).any()


@pytest.mark.parametrize("mode, factor, test_factor", [("upscale_in_train", 1 / 0.7, 1.0), ("downgrade_in_infer", 1.0, 0.7)])
def test_dropout(mode, factor, test_factor):
    x = np.ones((200, 200), "float32")
    attrs = {"dropout_prob": 0.3, "dropout_implementation": mode}
    program, feed, outs = build_op("dropout", {"X": x}, attrs, {"Out": 1, "Mask": 1})
    (grad,) = fluid.gradients(outs["Out"], [program.global_block().var("X_0")])
    fetch = [outs["Out"][0], outs["Mask"][0], grad]
    out, mask, dx = fluid.Executor(fluid.CPUPlace()).run(program, feed=feed, fetch_list=fetch)
    assert mask.dtype == np.uint8 and abs(mask.mean() - 0.7) < 0.02
    np.testing.assert_allclose(out, mask * factor, rtol=1e-6)
    np.testing.assert_allclose(dx, mask * factor, rtol=1e-6)
    got = run_op("dropout", {"X": x}, {**attrs, "is_test": True}, {"Out": 1})["Out"]
    np.testing.assert_allclose(np.asarray(got), x * test_factor, rtol=1e-6)


def test_dropout_seeds():
    x = np.ones((50,), "float32")
    fixed = {"fix_seed": True, "seed": 7}
    run = lambda attrs, **more: np.asarray(run_op("dropout", {"X": x, **more}, attrs, {"Out": 1, "Mask": 1})["Out"])  # noqa: E731
    np.testing.assert_array_equal(run(fixed), run(fixed))
    assert (run({"seed": 7}) != run({"seed": 7})).any()  # a seed counts only with fix_seed
    seed = np.array([5], "int32")
    np.testing.assert_array_equal(run({}, Seed=seed), run({}, Seed=seed))


def test_dropout_probability_is_checked():
    with pytest.raises(ShapeError, match=r"received 1\.5"):
        run_op("dropout", {"X": np.ones((2,), "float32")}, {"dropout_prob": 1.5}, {"Out": 1, "Mask": 1})


def test_shuffle_batch_and_its_gradient():
    x = np.arange(12, dtype="float32").reshape(6, 2)
    program, feed, outs = build_op(
        "shuffle_batch", {"X": x, "Seed": np.array([3])}, {}, {"Out": 1, "ShuffleIdx": 1, "SeedOut": 1}
    )
    (grad,) = fluid.gradients([outs["Out"][0]], [program.global_block().var("X_0")], target_gradients=[outs["Out"][0]])
    out, index, dx = fluid.Executor(fluid.CPUPlace()).run(
        program, feed=feed, fetch_list=[outs["Out"][0], outs["ShuffleIdx"][0], grad]
    )
    np.testing.assert_array_equal(out, x[index])
    np.testing.assert_array_equal(dx, x)


def test_random_crop_and_sampling():
    x = np.arange(2 * 5 * 5, dtype="float32").reshape(2, 5, 5)
    got = np.asarray(
        run_op("random_crop", {"X": x, "Seed": np.array([1])}, {"shape": [3, 2]}, {"Out": 1, "SeedOut": 1})["Out"]
    )
    assert got.shape == (2, 3, 2) and (np.diff(got, axis=2) == 1).all() and (np.diff(got, axis=1) == 5).all()
    p = np.tile(np.array([[0.2, 0.0, 0.8]], "float32"), (N // 10, 1))
    ids = np.asarray(run_op("sampling_id", {"X": p}, {}, {"Out": 1})["Out"])
    assert not (ids == 1).any() and abs((ids == 2).mean() - 0.8) < 0.05
