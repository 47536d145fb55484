"""What typical mistakes of Fluid's users are answered with: what was expected, what came, where, and what to do.

Each mistake is a function, decorated with the parts that the message must have, in any order. `HERE` is this file's name:
the message ends with the user's line.
"""

import os

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid import layers as L

HERE = os.path.basename(__file__)
MISTAKES = []


def mistake(*parts):
    def keep(function):
        MISTAKES.append(pytest.param(function, parts, id=function.__name__))
        return function

    return keep


def ready():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


def linear():
    x = fluid.data("x", [None, 2])
    y = L.fc(x, 1)
    return x, y, ready()


def run(feed, *fetch):
    return ready().run(fluid.default_main_program(), feed=feed, fetch_list=list(fetch))


ONES = np.ones((3, 2), "float32")


@mistake("x: float32[-1, 2]", "not fed", "feed names no variable", HERE)
def wrong_feed_name():
    _, y, exe = linear()
    exe.run(feed={"z": ONES}, fetch_list=[y])


@mistake("x: float32[-1, 2]", "not fed", "feed names no variable", HERE)
def missing_feed():
    _, y, exe = linear()
    exe.run(feed={}, fetch_list=[y])


@mistake("x", "[-1, 2]", "5")
def wrong_shape():
    _, y, exe = linear()
    exe.run(feed={"x": np.ones((3, 5), "float32")}, fetch_list=[y])


@mistake("x", "rank", "[3]")
def wrong_rank():
    _, y, exe = linear()
    exe.run(feed={"x": np.ones(3, "float32")}, fetch_list=[y])


@mistake("fc_0.w_0", "startup")
def startup_forgotten():
    x = fluid.data("x", [None, 2])
    y = L.fc(x, 1)
    fluid.Executor(fluid.CPUPlace()).run(feed={"x": ONES}, fetch_list=[y])


@mistake("nowhere", "fetch")
def fetch_of_unknown_name():
    _, _, exe = linear()
    exe.run(feed={"x": ONES}, fetch_list=["nowhere"])


@mistake("fetch", "program")
def fetch_from_another_program():
    _, _, exe = linear()
    with fluid.program_guard(fluid.Program()):
        other = L.fill_constant([1], "float32", 1.0)
    exe.run(feed={"x": ONES}, fetch_list=[other])


@mistake("fetch", "float")
def fetch_of_a_number():
    _, _, exe = linear()
    exe.run(feed={"x": ONES}, fetch_list=[3.0])


@mistake("fc", "input", "Variable", "ndarray")
def layer_of_an_array():
    L.fc(ONES, 1)


@mistake("relu", "Variable", "list")
def layer_of_a_list():
    L.relu([1.0, 2.0])


@mistake("w", "[2, 1]", "[3, 1]")
def parameter_of_another_shape():
    L.fc(fluid.data("x", [None, 2]), 1, param_attr="w")
    L.fc(fluid.data("y", [None, 3]), 1, param_attr="w")


@mistake("label", "7", "3", HERE)
def label_out_of_range():
    x, label = fluid.data("x", [None, 3]), fluid.data("label", [None, 1], "int64")
    loss = L.cross_entropy(L.softmax(x), label)
    run({"x": np.ones((1, 3), "float32"), "label": np.array([[7]])}, loss)


@mistake("lookup_table", "0 to 4", "received 9", HERE)
def word_out_of_range():
    words = fluid.data("words", [None, 1], "int64")
    run({"words": np.array([[9]])}, L.embedding(words, [5, 2]))


@mistake("sequence_pool", "input X", "LoD", "(3, 2)", "create_lod_tensor", HERE)
def sequence_without_lengths():
    x = fluid.data("x", [None, 2], lod_level=1)
    run({"x": ONES}, L.sequence_pool(x, "sum"))


@mistake("sequence_pool", "input X", "LoD", HERE)
def sequence_of_a_dense_variable():
    x = fluid.data("x", [None, 2])
    run({"x": ONES}, L.sequence_pool(x, "sum"))


@mistake("pool_type", "sum")
def unknown_pooling():
    L.sequence_pool(fluid.data("x", [None, 2], lod_level=1), "middle")


@mistake("loss", "one element", "[-1, 1]", "mean", HERE)
def loss_of_many_values():
    _, y, _ = linear()
    fluid.optimizer.SGD(0.1).minimize(y)


@mistake("momentum")
def unknown_optimizer_argument():
    fluid.optimizer.SGD(0.1, momentum=0.9)


@mistake("learning_rate", "str")
def rate_of_a_string():
    fluid.optimizer.SGD("0.1")


@mistake("2", "1", "x")
def too_few_columns():
    x, y = fluid.data("x", [None, 2]), fluid.data("y", [None, 1])
    fluid.DataFeeder([x, y], fluid.CPUPlace()).feed([(np.ones(2, "float32"),)])


@mistake("nothing_here")
def model_of_a_wrong_folder():
    fluid.io.load_inference_model("nothing_here", ready())


@mistake("parameter directory", "nothing_here")
def parameters_of_a_wrong_folder():
    _, _, exe = linear()
    fluid.io.load_params(exe, "nothing_here")


@mistake("mul", "5", "2", HERE)
def products_that_do_not_fit():
    L.matmul(fluid.data("x", [4, 5]), fluid.data("y", [2, 3]))


@mistake("elementwise_add", "[4, 5]", "[4, 3]", HERE)
def sums_that_do_not_fit():
    L.elementwise_add(fluid.data("x", [4, 5]), fluid.data("y", [4, 3]))


@mistake("reshape", "7", HERE)
def impossible_reshape():
    L.reshape(fluid.data("x", [4, 5]), [7, 3])


@mistake("concat", "[4, 5]", "[3, 2]", HERE)
def impossible_concat():
    L.concat([fluid.data("x", [4, 5]), fluid.data("y", [3, 2])], axis=0)


@mistake("conv2d", "3 channels", "groups=2", HERE)
def channels_that_do_not_divide():
    L.conv2d(fluid.data("x", [None, 3, 8, 8]), 4, 3, groups=2)


@mistake("conv2d", "4", "[-1, 64]", HERE)
def picture_without_channels():
    L.conv2d(fluid.data("x", [None, 64]), 4, 3)


@mistake("gelly")
def unknown_activation():
    L.fc(fluid.data("x", [None, 2]), 1, act="gelly")


@mistake("batch", "3", "2", HERE)
def batches_of_different_sizes():
    x, y = fluid.data("x", [None, 2]), fluid.data("y", [None, 2])
    run({"x": ONES, "y": ONES[:2]}, L.elementwise_add(x, y))


@mistake("initial_states", "LSTMCell", "[hidden, cell]", "Variable", HERE)
def too_few_states():
    x = fluid.data("x", [None, 3, 2])
    L.rnn(L.LSTMCell(2), x, initial_states=L.fill_constant([1, 2], "float32", 0.0))


@mistake("to_variable", "guard")
def eager_outside_guard():
    fluid.dygraph.Linear(2, 1)(fluid.dygraph.to_variable(ONES))


@mistake("feeded_var_names", "'z'", "'x'")
def saving_with_an_unknown_feed():
    _, y, exe = linear()
    fluid.io.save_inference_model("model", ["z"], [y], exe)


@mistake("Program", "Variable")
def run_of_a_variable():
    _, y, exe = linear()
    exe.run(y, feed={"x": ONES})


@mistake("2 fields", "1 variables", "x")
def too_many_columns():
    x = fluid.data("x", [None, 2])
    fluid.DataFeeder([x], fluid.CPUPlace()).feed([(np.ones(2, "float32"), np.ones(1, "float32"))])


@mistake("x: float32[-1, 2]", "ragged", "create_lod_tensor")
def feed_of_ragged_lists():
    x = fluid.data("x", [None, 2])
    ready().run(feed={"x": np.array([[1.0, 2.0], [3.0]], dtype=object)}, fetch_list=[L.relu(x)])


@mistake("feed", "dict", "int")
def feed_of_a_number():
    _, y, exe = linear()
    exe.run(feed=3, fetch_list=[y])


@mistake("axis", "5", HERE)
def axis_out_of_range():
    L.concat([fluid.data("x", [4, 5]), fluid.data("y", [4, 5])], axis=5)


@mistake("dropout_prob", "2.0")
def impossible_dropout():
    L.dropout(fluid.data("x", [None, 2]), 2.0)


@mistake("fc", "'size' must be int", "str", HERE)
def width_of_a_string():
    L.fc(fluid.data("x", [None, 2]), "10")


@mistake("sequence_expand", "LoD", HERE)
def expand_without_lengths():
    x, y = fluid.data("x", [None, 2]), fluid.data("y", [None, 2])
    run({"x": ONES, "y": ONES}, L.sequence_expand(x, y))


@mistake("NumpyArrayInitializer", "numpy array", "list")
def initializer_of_a_list():
    fluid.initializer.NumpyArrayInitializer([1.0, 2.0])


@mistake("learning_rate", "number", "'0.5'")
def parameter_rate_of_a_string():
    fluid.ParamAttr(learning_rate="0.5")


@mistake("do_model_average", "bool", "3")
def average_of_a_number():
    fluid.ParamAttr(do_model_average=3)


@mistake("create_lod_tensor", "array", "str")
def lod_tensor_of_text():
    fluid.create_lod_tensor("abc", [[3]], fluid.CPUPlace())


@mistake("lookup_table", "0 to 9", "-1", HERE)
def negative_word():
    words = fluid.data("words", [None, 1], "int64")
    run({"words": np.array([[-1]])}, L.embedding(words, [10, 2]))


@mistake("i: int64[-1, 1]", "float32", "astype")
def words_as_floats():
    words = L.data("i", [1], dtype="int64")
    run({"i": np.ones((2, 1), "float32")}, L.embedding(words, [10, 2]))


@mistake("label: int64[-1, 1]", "rank 2", "[3]")
def labels_of_rank_1():
    x, label = L.data("x", [3]), L.data("label", [1], dtype="int64")
    loss = L.softmax_with_cross_entropy(x, label)  # cross_entropy takes them, as in 1.8.5
    run({"x": np.ones((3, 3), "float32"), "label": np.zeros(3, "int64")}, loss)


@mistake("x: float32[-1, 4]", "rank 2", "(shape [4])")
def one_sample_without_its_batch():
    x = L.data("x", [4])
    run({"x": np.ones(4, "float32")}, L.fc(x, 2))


@mistake("mul", "12", "16", HERE)
def pictures_of_another_size():
    x = L.data("x", [16])
    run({"x": np.ones((2, 3, 4), "float32")}, L.fc(x, 2))


@mistake("float", "Variable")
def number_of_a_variable():
    float(L.reduce_mean(fluid.data("x", [None, 2])))


@mistake("numpy", "dygraph")
def array_of_a_static_variable():
    fluid.data("x", [None, 2]).numpy()


@mistake("operand", "number or a Variable")
def sum_with_an_array():
    fluid.data("x", [None, 2]) + ONES


@mistake("While", "condition", "bool")
def loop_over_a_float():
    L.While(L.fill_constant([1], "float32", 1.0))


@mistake("While", "never writes the condition")
def loop_without_end():
    i, n = L.fill_constant([1], "int64", 0), L.fill_constant([1], "int64", 3)
    with L.While(L.less_than(i, n)).block():
        L.increment(i)


@mistake("piecewise_decay", "2", "1")
def too_few_rates():
    L.piecewise_decay([1, 2], [0.1])


@mistake("parameter_list", "model.parameters()")
def eager_optimizer_without_parameters():
    with fluid.dygraph.guard():
        fluid.optimizer.SGD(0.1)


@mistake("forward", "Net")
def layer_without_forward():
    class Net(fluid.dygraph.Layer):
        pass

    with fluid.dygraph.guard():
        Net()(fluid.dygraph.to_variable(ONES))


@mistake("super().__init__()", "Net")
def layer_without_init():
    class Net(fluid.dygraph.Layer):
        def __init__(self):
            self.fc = fluid.dygraph.Linear(2, 1)

    with fluid.dygraph.guard():
        Net()


@mistake("dataset is needed", "None")
def training_without_a_dataset():
    fluid.Executor(fluid.CPUPlace()).train_from_dataset(fluid.default_main_program(), None)


@mistake("NoDataset", "QueueDataset")
def unknown_dataset():
    fluid.DatasetFactory().create_dataset("NoDataset")


@pytest.mark.parametrize("make, parts", MISTAKES)
@pytest.mark.filterwarnings("ignore")
def test_message(make, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as caught:
        make()
    text = f"{caught.value}"
    missing = [part for part in parts if part not in text]
    assert not missing, text


def test_pictures_are_fed_where_a_row_is_declared():
    """``layers.data`` checks no shape: fc flattens what comes, as in 1.8.5."""
    x = L.data("x", [16])
    y = L.fc(x, 2)
    pictures = np.random.rand(3, 1, 4, 4).astype("float32")
    as_pictures, as_rows = (run({"x": a}, y)[0] for a in (pictures, pictures.reshape(3, 16)))
    assert as_pictures.shape == as_rows.shape == (3, 2)


def test_numbers_of_another_width_convert():
    x, i = fluid.data("x", [None, 2]), fluid.data("i", [None, 1], "int64")
    out = run({"x": ONES.astype("float64"), "i": np.array([[1]], "int32")}, L.relu(x), L.embedding(i, [3, 2]))
    assert out[0].dtype == np.float32 and out[1].shape == (1, 2)


def test_two_minimize_calls_append_twice():
    x = fluid.data("x", [None, 2])
    loss = L.mean(L.fc(x, 1))
    for _ in range(2):
        fluid.optimizer.SGD(0.1).minimize(loss)
    assert [op.type for op in fluid.default_main_program().global_block().ops].count("sgd") == 4


def test_an_empty_reader_gives_no_batch():
    x = fluid.data("x", [None, 2])
    loader = fluid.io.DataLoader.from_generator([x], capacity=2)
    loader.set_batch_generator(lambda: iter([]), places=fluid.CPUPlace())
    assert list(loader()) == []
