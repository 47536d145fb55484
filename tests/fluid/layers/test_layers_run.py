"""Layers whose meaning lies in how their operators are put together, run against numpy."""

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers


def run(outs, feed, times=1):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for _ in range(times):
        found = exe.run(feed=feed, fetch_list=list(outs))
    return found


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_fc_of_several_inputs_sums_them():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 4), "float32"), rng.random((3, 2, 5), "float32")
    x, y = fluid.data("x", [None, 4]), fluid.data("y", [None, 2, 5])
    out = L.fc([x, y], 6, param_attr=[fluid.ParamAttr("wx"), fluid.ParamAttr("wy")], bias_attr="b", act="relu")
    got, wx, wy, bias = run([out, "wx", "wy", "b"], {"x": a, "y": b})
    np.testing.assert_allclose(got, np.maximum(a @ wx + b.reshape(3, 10) @ wy + bias, 0), rtol=1e-5, atol=1e-6)


def test_embedding_padding_row_is_zero():
    ids = np.array([[0], [9], [3]], "int64")
    out = L.embedding(L.data("ids", [1], dtype="int64"), [10, 4], padding_idx=-1, param_attr="table")
    got, table = run([out, "table"], {"ids": ids})
    np.testing.assert_array_equal(got, np.stack([table[0], np.zeros(4), table[3]]))


def test_step_counter_counts_runs():
    counter = L.autoincreased_step_counter(begin=5)
    assert L.autoincreased_step_counter(begin=5) is counter
    assert run([counter], {}, times=3)[0] == [7]


def test_py_func_with_its_gradient():
    x = fluid.data("x", [None, 2])
    x.stop_gradient = False
    out = fluid.default_main_program().current_block().create_var(name="out", dtype="float32", shape=[-1, 2])
    L.py_func(lambda a: np.array(a) ** 2, x, out, lambda a, b, g: 2 * np.array(a) * np.array(g))
    grad = fluid.gradients(L.reduce_sum(out), x)[0]
    value = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    got, slope = run([out, grad], {"x": value})
    np.testing.assert_allclose(got, value**2)
    np.testing.assert_allclose(slope, 2 * value)


def test_random_crop_cuts_a_window_and_moves_on():
    image = np.arange(2 * 8 * 8, dtype="float32").reshape(2, 8, 8)
    out = L.random_crop(fluid.data("x", [None, 8, 8]), [5, 5], seed=1)
    exe = fluid.Executor(fluid.CPUPlace())
    corners = set()
    for _ in range(10):
        (got,) = exe.run(feed={"x": image}, fetch_list=[out])
        assert got.shape == (2, 5, 5)
        top, left = divmod(int(got[0, 0, 0]), 8)
        np.testing.assert_array_equal(got[0], image[0, top : top + 5, left : left + 5])
        corners.add((top, left))
    assert len(corners) > 1


@pytest.mark.parametrize("heads", [1, 2])
def test_attention(heads):
    rng = np.random.default_rng(1)
    q, k, v = (rng.random((2, n, 4), "float32") for n in (3, 5, 5))
    made = [fluid.data(n, [None, *a.shape[1:]]) for n, a in (("q", q), ("k", k), ("v", v))]
    out = fluid.nets.scaled_dot_product_attention(*made, num_heads=heads)
    feed = {"q": q, "k": k, "v": v}
    if heads == 1:
        (got,) = run([out], feed)
        want = softmax(q @ k.transpose(0, 2, 1) / 2) @ v
        np.testing.assert_allclose(got, want, rtol=1e-5)
        return
    names = [p.name for p in fluid.default_main_program().all_parameters()]
    got, *params = run([out, *names], feed)
    by_name = dict(zip(names, params))
    q, k, v = (a @ by_name[f"fc_{i}.w_0"] + by_name[f"fc_{i}.b_0"] for i, a in enumerate((q, k, v)))
    parts = [softmax(q[..., s] @ k[..., s].transpose(0, 2, 1) / 2**0.5) @ v[..., s] for s in (np.s_[:2], np.s_[2:])]
    np.testing.assert_allclose(got, np.concatenate(parts, -1), rtol=1e-4)


def test_glu():
    value = np.random.default_rng(2).random((3, 6), "float32")
    (got,) = run([fluid.nets.glu(fluid.data("x", [None, 6]))], {"x": value})
    np.testing.assert_allclose(got, value[:, :3] / (1 + np.exp(-value[:, 3:])), rtol=1e-5)


def test_img_conv_group_learns():
    image = fluid.data("image", [None, 1, 8, 8])
    label = fluid.data("label", [None, 1], "int64")
    block = fluid.nets.img_conv_group(
        image, [4, 4], 2, conv_act="relu", conv_with_batchnorm=[True, False], pool_stride=2, pool_type="avg"
    )
    loss = L.mean(L.softmax_with_cross_entropy(L.fc(block, 2), label))
    fluid.optimizer.SGD(0.5).minimize(loss)
    fluid.default_startup_program().random_seed = 1
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, (16, 1))
    pixels = (rng.random((16, 1, 8, 8)) * 0.1 + truth[:, :, None, None]).astype("float32")
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    losses = [float(exe.run(feed={"image": pixels, "label": truth}, fetch_list=[loss])[0][0]) for _ in range(20)]
    assert losses[-1] < losses[0] / 3


def test_versions_and_places():
    fluid.require_version("1.5", "1.8.5")
    with pytest.raises(Exception, match=r"1\.9 or higher is required, but 1\.8\.5"):
        fluid.require_version("1.9")
    with pytest.raises(ValueError, match="min_version"):
        fluid.require_version("1.x")
    assert fluid.cpu_places(2) == [fluid.CPUPlace()] * 2
    with fluid.device_guard("gpu"):
        assert L.fill_constant([1], "float32", 1.0).op.attr("op_device") == "gpu"
    with pytest.raises(ValueError, match="'tpu'"), fluid.device_guard("tpu"):
        pass
