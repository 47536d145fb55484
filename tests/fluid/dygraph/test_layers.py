"""Layer: names, registration, states, hooks, modes; every layer class runs forward and backward."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError, NotSupportedError, StateMismatchError

dy, layers = fluid.dygraph, fluid.layers


@pytest.fixture(autouse=True)
def eager():
    with dy.guard(), fluid.unique_name.guard():
        yield


def var(*shape, dtype="float32"):
    rng = np.random.RandomState(1)
    v = dy.to_variable(rng.uniform(-1, 1, shape).astype(dtype) if dtype == "float32" else rng.randint(0, 3, shape))
    v.stop_gradient = dtype != "float32"
    return v


# constructor, inputs, state_dict as 1.8.5 has it, shape of the output
CASES = {
    "Conv2D": (
        lambda: dy.Conv2D(2, 4, 3, groups=2, act="relu"), [(1, 2, 5, 5)],
        {"weight": [4, 1, 3, 3], "bias": [4]}, [1, 4, 3, 3],
    ),
    "Conv3D": (
        lambda: dy.Conv3D(2, 3, 3), [(1, 2, 5, 5, 5)],
        {"weight": [3, 2, 3, 3, 3], "bias": [3]}, [1, 3, 3, 3, 3],
    ),
    "Conv2DTranspose": (
        lambda: dy.Conv2DTranspose(2, 3, 3), [(1, 2, 5, 5)],
        {"weight": [2, 3, 3, 3], "bias": [3]}, [1, 3, 7, 7],
    ),
    "Conv3DTranspose": (
        lambda: dy.Conv3DTranspose(2, 3, 3, bias_attr=True), [(1, 2, 5, 5, 5)],
        {"weight": [2, 3, 3, 3, 3], "bias": [3]}, [1, 3, 7, 7, 7],
    ),
    "Pool2D": (lambda: dy.Pool2D(2, "avg", 2), [(1, 2, 4, 4)], {}, [1, 2, 2, 2]),
    "Linear": (lambda: dy.Linear(3, 4, act="tanh"), [(2, 5, 3)], {"weight": [3, 4], "bias": [4]}, [2, 5, 4]),
    "BatchNorm": (
        lambda: dy.BatchNorm(2, act="relu"), [(2, 2, 3, 3)],
        {"weight": [2], "bias": [2], "_mean": [2], "_variance": [2]}, [2, 2, 3, 3],
    ),
    "Dropout": (lambda: dy.Dropout(0.5), [(2, 3)], {}, [2, 3]),
    "Embedding": (lambda: dy.Embedding([5, 3]), [(2, 1, "int64")], {"weight": [5, 3]}, [2, 1, 3]),
    "LayerNorm": (lambda: dy.LayerNorm([3, 4]), [(2, 3, 4)], {"weight": [12], "bias": [12]}, [2, 3, 4]),
    "LayerNorm bare": (lambda: dy.LayerNorm(4, scale=False, shift=False), [(2, 4)], {}, [2, 4]),
    "GroupNorm": (lambda: dy.GroupNorm(4, 2), [(1, 4, 5, 5)], {}, [1, 4, 5, 5]),
    "GroupNorm named": (lambda: dy.GroupNorm(4, 2, param_attr="w"), [(1, 4, 5, 5)], {"weight": [4]}, [1, 4, 5, 5]),
    "InstanceNorm": (lambda: dy.InstanceNorm(4), [(1, 4, 5, 5)], {"scale": [4], "bias": [4]}, [1, 4, 5, 5]),
    "SpectralNorm": (lambda: dy.SpectralNorm([4, 5]), [(4, 5)], {"weight_u": [4], "weight_v": [5]}, [4, 5]),
    "PRelu all": (lambda: dy.PRelu("all"), [(2, 3)], {"weight": [1]}, [2, 3]),
    "PRelu channel": (lambda: dy.PRelu("channel", channel=3), [(2, 3, 2, 2)], {"weight": [1, 3, 1, 1]}, [2, 3, 2, 2]),
    "PRelu element": (lambda: dy.PRelu("element", input_shape=[2, 3]), [(2, 3)], {"weight": [1, 3]}, [2, 3]),
    "Bilinear": (
        lambda: dy.BilinearTensorProduct(3, 4, 5), [(2, 3), (2, 4)],
        {"weight": [5, 3, 4], "bias": [1, 5]}, [2, 5],
    ),
    "GRUUnit": (lambda: dy.GRUUnit(6), [(2, 6), (2, 2)], {"weight": [2, 6], "bias": [1, 6]}, [2, 2]),
    "NCE": (lambda: dy.NCE(10, 4), [(2, 4), (2, 1, "int64")], {"weight": [10, 4]}, [2, 1]),
    "NCE bias": (
        lambda: dy.NCE(10, 4, bias_attr="b"), [(2, 4), (2, 1, "int64")],
        {"weight": [10, 4], "bias": [10, 1]}, [2, 1],
    ),
    "TreeConv": (
        lambda: dy.TreeConv(5, 6, 2, 2), [(1, 10, 5), (1, 9, 2, "int64")],
        {"weight": [5, 3, 6, 2]}, [1, 10, 6, 2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_class(case):
    make, shapes, state, shape = CASES[case]
    layer = make()
    assert {k: v.shape for k, v in layer.state_dict().items()} == state
    inputs = [var(*s) if not isinstance(s[-1], str) else var(*s[:-1], dtype=s[-1]) for s in shapes]
    out = layer(*inputs)
    out = out[0] if isinstance(out, tuple) else out
    assert out.shape == shape
    if out.stop_gradient:
        assert not any(p.trainable and not p.stop_gradient for p in layer.parameters())
        return
    layers.mean(out).backward()
    for param in layer.parameters():
        if not param.stop_gradient:
            assert param.gradient().shape == tuple(param.shape)


@pytest.mark.parametrize("name", ["RowConv", "SequenceConv"])
def test_layers_that_dygraph_never_had(name):
    with pytest.raises(NotSupportedError, match="dygraph mode"):
        getattr(dy.nn, name)("scope", 3)


@pytest.mark.parametrize(
    "make,error",
    [
        (lambda: dy.Conv2D(3, 4, 3, groups=2), ValueError),
        (lambda: dy.Linear(3, 4, param_attr=False), TypeError),
        (lambda: dy.GRUUnit(7), ValueError),
        (lambda: dy.PRelu("channel"), ValueError),
        (lambda: dy.Pool2D(), ValueError),
        (lambda: dy.LayerNorm([3])(var(2, 4)), ValueError),
        (lambda: dy.Linear(3, 4)(np.zeros((2, 3), "float32")), TypeError),
        (lambda: dy.Embedding([3]), ValueError),
        (lambda: dy.Dropout(1.5), ValueError),
    ],
)
def test_refused(make, error):
    with pytest.raises(error):
        make()


def test_names():
    class MyLSTMNet(dy.Layer):
        pass

    class Conv2DBNLayer(dy.Layer):
        pass

    assert MyLSTMNet().full_name() == "my_lstm_net_0"
    assert Conv2DBNLayer().full_name() == "conv2dbn_layer_0"
    assert dy.Layer("abc").full_name() == "abc_0"
    linear = dy.Linear(2, 2)
    assert linear.create_parameter([2]).name == "linear_0.w_1"
    assert linear.create_parameter([2], is_bias=True).name == "linear_0.b_1"
    assert linear.create_parameter([2], attr=False) is None
    assert linear.create_variable(name="v").name == "linear_0.v"
    assert dy.Embedding("scope", [3, 2]).weight.name == "scope_0.w_0"  # the form of 1.5


def test_attributes():
    layer = dy.Linear(2, 2)
    with pytest.raises(TypeError, match="weight is a Parameter"):
        layer.weight = 3
    layer.weight = None
    assert layer.weight is None and [p.name for p in layer.parameters()] == ["linear_0.b_0"]
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        layer.foo  # noqa: B018
    layer.inner = dy.Linear(2, 2)
    with pytest.raises(TypeError, match="inner is a Layer"):
        layer.inner = 3
    del layer.inner
    assert layer.sublayers() == []
    with pytest.raises(TypeError):
        layer.add_sublayer("x", 3)
    with pytest.raises(TypeError):
        layer.add_parameter("x", 3)
    with pytest.raises(ValueError, match="backward"):
        layer.backward()

    class Late(dy.Layer):
        def __init__(self):
            self.fc = dy.Linear(2, 2)

    with pytest.raises(ValueError, match="__init__"):
        Late()


def test_shared_parts_come_once():
    net = dy.Sequential(dy.Linear(2, 2))
    net.again = net[0]
    assert len(net.parameters()) == 2 and len(net.sublayers()) == 1


def test_containers():
    net = dy.Sequential(dy.Linear(2, 2), dy.Linear(2, 3))
    assert [n for n, _ in net.named_sublayers(prefix="p", include_self=True)] == ["p", "p.0", "p.1"]
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert net[1] is net["1"] and len(net) == 2
    many = dy.LayerList([dy.Linear(2, 2) for _ in range(3)])
    many.insert(0, net)
    assert many[0] is net and many[-1] is many[3] and len(many[1:]) == 3
    with pytest.raises(IndexError):
        many[4]
    params = dy.ParameterList([net[0].weight])
    assert params[0] is net[0].weight and [n for n, _ in params.named_parameters()] == ["0"]


def test_hooks():
    layer, seen = dy.Linear(2, 2), []
    pre = layer.register_forward_pre_hook(lambda la, inputs: seen.append(len(inputs)))
    post = layer.register_forward_post_hook(lambda la, inputs, out: out * 0 + 5)
    assert layer(var(1, 2)).numpy().tolist() == [[5, 5]] and seen == [1]
    pre.remove()
    post.remove()
    assert layer(var(1, 2)).numpy().tolist() != [[5, 5]] and seen == [1]
    layer.register_forward_pre_hook(lambda la, inputs: inputs[0] * 0)
    assert layer(var(1, 2)).numpy().tolist() == [[0, 0]]


def test_train_and_eval():
    net = dy.Sequential(dy.Dropout(0.5), dy.BatchNorm(3))
    x = var(4, 3)
    net.eval()
    assert not net[0].training and layers.mean(net(x)).stop_gradient
    before = net[1]._mean.numpy()
    net(x)
    np.testing.assert_array_equal(net[1]._mean.numpy(), before)
    net.train()
    assert not layers.mean(net(x)).stop_gradient
    assert (net[1]._mean.numpy() != before).any()


def test_state_round_trip(tmp_path):
    net = dy.Sequential(dy.Linear(2, 3), dy.BatchNorm(3))
    dy.save_dygraph(net.state_dict(), str(tmp_path / "deep" / "model"))
    params, opt = dy.load_dygraph(str(tmp_path / "deep" / "model"))
    assert opt is None and sorted(params) == sorted(net.state_dict())
    table = dy.load_dygraph(str(tmp_path / "deep" / "model.pdparams"), keep_name_table=True)[0]
    assert table["StructuredToParameterName@@"]["0.weight"] == "linear_0.w_0"
    other = dy.Sequential(dy.Linear(2, 3), dy.BatchNorm(3))
    other.set_dict(params)
    np.testing.assert_array_equal(other[0].weight.numpy(), net[0].weight.numpy())
    by_name = {p.name: p.numpy() + 1 for p in other.parameters()}
    other.set_dict(by_name, use_structured_name=False)
    np.testing.assert_array_equal(other[0].weight.numpy(), net[0].weight.numpy() + 1)


def test_states_refused(tmp_path):
    layer = dy.Linear(2, 3)
    with pytest.raises(StateMismatchError, match="'weight'"):
        layer.set_dict({})
    with pytest.raises(StateMismatchError, match=r"expects float32\[2, 3\]"):
        layer.set_dict({"weight": np.zeros((3, 3), "float32"), "bias": np.zeros(3, "float32")})
    with pytest.warns(UserWarning, match="extra"):
        layer.set_dict({**layer.state_dict(), "extra": np.zeros(1)})
    with pytest.raises(InvalidProgramError, match="empty"):
        dy.save_dygraph({}, str(tmp_path / "m"))
    with pytest.raises(InvalidProgramError, match="filename"):
        dy.save_dygraph(layer.state_dict(), str(tmp_path) + "/")
    with pytest.raises(FileNotFoundError, match=r"none\.pdparams"):
        dy.load_dygraph(str(tmp_path / "none"))


def test_data_parallel_of_one():
    net = dy.Linear(2, 3)
    wrapped = dy.DataParallel(net, dy.prepare_context())
    assert list(wrapped.state_dict()) == ["weight", "bias"] and wrapped.full_name() == "linear_0_data_parallel_0"
    loss = layers.mean(wrapped(var(1, 2)))
    assert wrapped.scale_loss(loss) is loss
    wrapped.apply_collective_grads()
    env = dy.ParallelEnv()
    assert (env.nranks, env.local_rank, env.dev_id) == (1, 0, 0)


def test_each_guard_starts_names_anew():
    for _ in range(2):
        with dy.guard():
            assert dy.Linear(2, 2).weight.name == "linear_0.w_0"


def test_arguments_without_effect_in_imperative_mode():
    """1.8.5: GRUUnit has one form of its output, and train() and eval() alone decide what Dropout and BatchNorm do."""
    dygraph = fluid.dygraph
    with dygraph.guard():
        x, h = dygraph.to_variable(np.random.rand(2, 12).astype("float32")), dygraph.to_variable(np.ones((2, 4), "float32"))
        cell, other = dygraph.GRUUnit(12), dygraph.GRUUnit(12, origin_mode=True)
        other.set_dict({k: v.numpy() for k, v in cell.state_dict().items()})
        np.testing.assert_array_equal(cell(x, h)[0].numpy(), other(x, h)[0].numpy())
        drop, norm = dygraph.Dropout(0.5, is_test=True), dygraph.BatchNorm(12, is_test=True)
        ones = dygraph.to_variable(np.ones((8, 12), "float32"))
        assert 0 < (drop(ones).numpy() == 0).sum() < 96
        np.testing.assert_allclose(norm(x).numpy().mean(0), np.zeros(12), atol=1e-4)
        drop.eval()
        norm.eval()
        assert (drop(ones).numpy() == 0.5).all()
        assert np.abs(norm(x).numpy().mean(0)).max() > 0.01
        drop.train()
