"""What Fluid 1.1 had and 1.8.5 dropped, reordered or renamed still works; keywords of public programs are taken."""

import importlib.util
import inspect
import os

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError, NotSupportedError
from millstream.fluid import layers as L

HERE = os.path.dirname(os.path.abspath(__file__))
_spec = importlib.util.spec_from_file_location("api_of_1_8_5", os.path.join(HERE, "test_api.py"))
API = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(API)

# name, keyword -> why it is an error (in 1.1 and 1.8.5 too, where they are no parameters of these functions)
REFUSED = {
    ("paddle.fluid.layers.dropout", "input"): "the parameter is x",
    ("paddle.fluid.layers.dropout", "upscale_in_train"): "a value of dropout_implementation",
    ("paddle.fluid.layers.reduce_mean", "axis"): "the parameter is dim",
    ("paddle.fluid.layers.one_hot", "dtype"): "the result is float32",
    ("paddle.fluid.dygraph.LayerNorm", "name_scope"): "before 1.6",
    ("paddle.fluid.dygraph.LayerNorm", "begin_norm_axis"): "before 1.6",
    ("paddle.fluid.Variable", "ivar"): "before 1.6, inside Fluid",
}


def rows(name):
    with open(os.path.join(HERE, name)) as source:
        return [line.rstrip("\n").split("\t") for line in source.readlines()[1:]]


def of_1_1():
    return [row for row in rows("api_1_1.tsv") if "DistributeTranspiler" not in row[0]]  # of several machines


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield


def parameters_of(found):
    try:
        return inspect.signature(found).parameters
    except ValueError:
        return None


@pytest.mark.parametrize("row", of_1_1(), ids=[row[0] for row in of_1_1()])
def test_name_and_parameters_of_1_1(row):
    name, signature = row[:2]
    found = API.find(name.removesuffix(".__init__"))
    wanted, here = API.wanted(signature), parameters_of(found)
    if wanted is None or here is None or any(p.kind is p.VAR_KEYWORD for p in here.values()):
        return
    lost = [n for n, _ in wanted if n != "self" and not n.startswith("*") and n not in here]
    assert not lost, f"{name} of 1.1 had {lost}; here {list(here)}"


@pytest.mark.parametrize("name", sorted({row[0] for row in rows("keywords_used.tsv")}))
def test_keywords_of_programs(name):
    here = parameters_of(API.find(name))
    if here is None or any(p.kind is p.VAR_KEYWORD for p in here.values()):
        return
    used = [row[1] for row in rows("keywords_used.tsv") if row[0] == name]
    assert [k for k in used if k not in here and (name, k) not in REFUSED] == []


def last_op():
    return fluid.default_main_program().global_block().ops[-1]


def test_positions_of_1_1():
    x = L.data("x", [4])
    seq = L.data("seq", [4], lod_level=1)
    ids = L.data("ids", [1], dtype="int64", lod_level=2)
    scores = L.data("scores", [1], lod_level=2)
    values, _ = L.argsort(x, -1, "sorted")
    assert values.name.startswith("sorted") and last_op().attr("descending") is False
    box = L.data("box", [4], append_batch_size=True)
    assert L.iou_similarity(box, box, "overlap").name.startswith("overlap") and last_op().attr("box_normalized") is True
    cost = L.sigmoid_cross_entropy_with_logits(x, x, "cost")
    assert cost.name.startswith("cost") and last_op().attr("ignore_index") == -100
    assert L.ctc_greedy_decoder(seq, 0, "decoded").name.startswith("decoded")
    L.beam_search(ids, scores, ids, scores, 2, 1, 0, "beam")
    assert last_op().attr("is_accumulated") is True
    bias = fluid.ParamAttr(name="bias_of_conv")
    L.sequence_conv(seq, 3, 3, 1, None, bias, "weight_of_conv", "relu")
    assert {p.name for p in fluid.default_main_program().all_parameters()} == {"bias_of_conv", "weight_of_conv"}
    assert last_op().type == "relu"


def test_optimizer_positions_of_1_1():
    decay = fluid.regularizer.L2Decay(0.1)
    for kind, before in (
        ("SGD", (0.1,)),
        ("Adagrad", (0.1, 1e-6)),
        ("Adam", (0.1, 0.9, 0.999, 1e-8)),
        ("Adamax", (0.1, 0.9, 0.999, 1e-8)),
        ("DecayedAdagrad", (0.1, 0.95, 1e-6)),
        ("Ftrl", (0.1, 0.0, 0.0, -0.5)),
        ("RMSProp", (0.1, 0.95, 1e-6, 0.0, False)),
        ("Adadelta", (0.1, 1e-6, 0.95)),
        ("LarsMomentum", (0.1, 0.9, 0.001, 0.0005)),
    ):
        made = getattr(fluid.optimizer, kind)(*before, decay, "named")
        assert made.regularization is decay and made._parameter_list is None and made._name == "named", kind
    made = fluid.optimizer.Momentum(0.1, 0.9, True, decay, "named")
    assert made.regularization is decay and made._use_nesterov and made._name == "named"


def run(fetches, feed):
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe.run(feed=feed, fetch_list=fetches)


def test_init_on_cpu_and_gradient_clip():
    with fluid.initializer.init_on_cpu():
        assert fluid.initializer.force_init_on_cpu()
        x = L.data("x", [2])
        attr = fluid.ParamAttr(
            name="w",
            initializer=fluid.initializer.Constant(1.0),
            gradient_clip=fluid.clip.GradientClipByValue(max=0.5, min=-0.5),
        )
        loss = L.reduce_sum(L.fc(x, 1, param_attr=attr, bias_attr=False, is_test=False))
    assert not fluid.initializer.force_init_on_cpu()
    fluid.optimizer.SGD(1.0).minimize(loss)
    run([loss], {"x": np.array([[3.0, 0.25]], "float32")})
    weight = np.array(fluid.global_scope().find_var("w").get_tensor())
    assert weight.ravel().tolist() == [0.5, 0.75]


def test_parallel_do():
    x = L.data("x", [2])
    parts = L.ParallelDo(L.get_places())
    with parts.do():
        parts.write_output(L.scale(parts.read_input(x), 3.0))
    assert run([parts()], {"x": np.ones((2, 2), "float32")})[0].tolist() == [[3, 3], [3, 3]]


def test_preprocessor():
    reader = L.py_reader(4, [[-1, 2], [-1, 1]], ["float32", "int64"])
    preprocessor = L.Preprocessor(reader)
    with preprocessor.block():
        image, label = preprocessor.inputs()
        preprocessor.outputs(L.scale(image, 0.5), L.scale(label, 2))
    image, label = L.read_file(L.double_buffer(preprocessor()))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    reader.decorate_tensor_provider(lambda: iter([[np.full((3, 2), 4, "float32"), np.full((3, 1), 7)]]))
    reader.start()
    got = exe.run(fetch_list=[image, label])
    assert got[0].tolist() == [[2, 2]] * 3 and got[1].tolist() == [[14]] * 3
    with pytest.raises(InvalidProgramError, match="put batch\\(\\) before it"):
        L.batch(preprocessor(), 2)
    empty = L.Preprocessor(reader)
    with pytest.raises(InvalidProgramError, match="call outputs"), empty.block():
        empty.inputs()


def test_refused_forms():
    with pytest.raises(NotSupportedError, match=r"DataLoader\.from_generator"):
        L.open_files(["a.recordio"], [[-1, 2]], [0], ["float32"])
    with pytest.raises(NotSupportedError, match="py_reader"):
        L.open_recordio_file("a.recordio", [[-1, 2]], [0], ["float32"])
    with pytest.raises(NotSupportedError, match="data_generator"):
        fluid.recordio_writer.convert_reader_to_recordio_file("a", list, None)
    with pytest.raises(NotSupportedError, match="data_generator"):
        fluid.recordio_writer.convert_reader_to_recordio_files("a", 1, list, None)
    with pytest.raises(InvalidProgramError, match="act='relu'"):
        L.batch_norm(L.data("x", [2]), fuse_with_relu=True)


def test_swish_says_that_beta_is_lost():
    x = L.data("x", [2])
    with pytest.warns(UserWarning, match="beta=2.0 has no effect"):
        y = L.swish(x, beta=2.0)
    (value,) = run([y], {"x": np.array([[1.0, -1.0]], "float32")})
    np.testing.assert_allclose(value, [[0.7310586, -0.2689414]], rtol=1e-6)  # as 1.8.5
