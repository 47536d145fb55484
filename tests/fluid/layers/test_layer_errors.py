"""A wrong call to a layer is refused at once, saying which layer, which argument, what came, and the user's line."""

import os
import re

import numpy as np
import pytest

import millstream.fluid as fluid

L = fluid.layers
HERE = os.path.basename(__file__)


@pytest.fixture(autouse=True)
def fresh_programs():
    with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard():
        yield


def var(shape, dtype="float32", name="v", lod_level=0):
    return fluid.data(name, shape, dtype, lod_level)


# (call, exception, what the message must hold)
REFUSED = [
    (lambda: L.fc(3, 2), TypeError, ["fc", "'input'", "int"]),
    (lambda: L.fc(var([None, 4], "int64"), 2), TypeError, ["fc", "float32", "int64[-1, 4]"]),
    (lambda: L.fc(var([None, 4]), 2, num_flatten_dims=2), ValueError, ["fc", "num_flatten_dims", "received 2"]),
    (lambda: L.fc(var([None, None]), 2), ValueError, ["fc", "number of features"]),
    (lambda: L.fc(var([None, 4]), "2"), TypeError, ["fc", "'size'", "str"]),
    (lambda: L.embedding(var([None, 1]), [3, 4]), TypeError, ["embedding", "'input'", "float32"]),
    (lambda: L.embedding(var([None, 1], "int64"), [3]), ValueError, ["embedding", "'size'", "[3]"]),
    (lambda: L.embedding(var([None, 1], "int64"), [3, 4], padding_idx=3), ValueError, ["padding_idx", "[-3, 3)"]),
    (lambda: L.conv2d(var([None, 4, 8, 8]), 6, 3, groups=3), ValueError, ["conv2d", "'groups'", "4 channels"]),
    (lambda: L.conv2d(var([None, 4, 8, 8]), 6, 3, padding="WHAT"), ValueError, ["conv2d", "SAME", "WHAT"]),
    (lambda: L.conv2d(var([None, 4, 8, 8]), 6, 3, data_format="NHCW"), ValueError, ["NCHW", "NHCW"]),
    (lambda: L.conv2d(var([None, 4, 8, 8]), 6, [3, 3, 3]), ValueError, ["filter_size", "2 elements"]),
    (lambda: L.conv2d(var([None, -1, 8, 8]), 6, 3), ValueError, ["conv2d", "number of channels"]),
    (lambda: L.conv2d_transpose(var([None, 4, 8, 8]), 6), ValueError, ["output_size", "filter_size"]),
    (lambda: L.pool2d(var([None, 4, 8, 8]), 2, pool_type="median"), ValueError, ["pool2d", "'max'", "'median'"]),
    (lambda: L.pool2d(var([None, 4, 8, 8])), ValueError, ["pool2d", "pool_size"]),
    (lambda: L.batch_norm(var([None, 4]), data_layout="WHAT"), ValueError, ["batch_norm", "data_layout"]),
    (lambda: L.batch_norm(var([None, 4]), param_attr=False), ValueError, ["batch_norm", "trainable=False"]),
    (lambda: L.layer_norm(var([None, 4]), begin_norm_axis=4), TypeError, ["layer_norm", "begin_norm_axis"]),
    (lambda: L.dropout(var([None, 4]), 1.5), ValueError, ["dropout", "between 0 and 1", "1.5"]),
    (lambda: L.relu(var([None, 4], "int64")), TypeError, ["relu", "'x'", "int64"]),
    (lambda: L.softmax(var([None, 4]), axis=5), ValueError, ["softmax", "'axis'", "5"]),
    (lambda: L.prelu(var([None, 4, 2, 2]), "some"), ValueError, ["prelu", "'mode'", "'some'"]),
    (lambda: L.elementwise_add(var([None, 4]), 3), TypeError, ["elementwise_add", "'y'", "int"]),
    (lambda: L.matmul(var([2, 3, 4]), var([2, 3, 4], name="w")), ValueError, ["matmul", "4 and 3"]),
    (lambda: L.concat([]), ValueError, ["concat", "empty"]),
    (lambda: L.concat([var([2, 3]), var([2, 3], "int64", "w")]), ValueError, ["concat", "float32, int64"]),
    (lambda: L.reshape(var([2, 3]), [-1, -1]), ValueError, ["reshape", "only one -1"]),
    (lambda: L.reshape(var([2, 3]), [2, 3, 0]), ValueError, ["reshape", "dimension 2"]),
    (lambda: L.transpose(var([2, 3]), [0]), ValueError, ["transpose", "2 elements"]),
    (lambda: L.split(var([2, 3]), 2, dim=1), ValueError, ["split", "equal parts"]),
    (lambda: L.slice(var([2, 3]), [0, 1], [0], [1, 1]), ValueError, ["slice", "'starts'", "2 elements"]),
    (lambda: L.fill_constant([2, -1], "float32", 1.0), ValueError, ["fill_constant", "every dimension"]),
    (lambda: L.fill_constant([2], "flot", 1.0), ValueError, ["fill_constant", "'flot'"]),
    (lambda: L.cast(var([2]), "notype"), ValueError, ["cast", "'notype'"]),
    (lambda: L.assign("a"), TypeError, ["assign", "numpy array", "str"]),
    (lambda: L.assign(np.zeros(2)), TypeError, ["assign", "float64"]),
    (lambda: L.image_resize(var([None, 4, 8, 8])), ValueError, ["image_resize", "out_shape", "scale"]),
    (lambda: L.topk(var([None, 4]), "a"), (TypeError, ValueError), ["top_k"]),
    (lambda: L.py_func(3, None, None), TypeError, ["py_func", "callable"]),
    (lambda: L.nce(var([None, 4]), var([None, 1], "int64", "w"), 5, sampler="best"), ValueError, ["nce", "'best'"]),
    (lambda: var([2, 3]) + "a", ValueError, ["__add__", "'a'"]),
    (lambda: var([2, 3]) + [1, 2], TypeError, ["__add__", "[1, 2]"]),
    (lambda: var([2, 3], "int64") + 1.5, ValueError, ["1.5", "int64", "cast"]),
    (lambda: var([2, 3])[0, 0, 0], ValueError, ["3 indices", "float32[2, 3]"]),
    (lambda: var([2, 3])[:, None], TypeError, ["index", "None"]),
    (lambda: list(var([2, 3])), TypeError, ["unstack"]),
    (lambda: L.data(3, [1]), TypeError, ["data", "'name'"]),
    (lambda: fluid.data("d", [2], dtype="nope"), TypeError, ["nope"]),
]


@pytest.mark.parametrize(("call", "kind", "parts"), REFUSED, ids=range(len(REFUSED)))
def test_refused(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# checks of a layer, and those that shape inference makes in its name
LOCATED = [
    lambda: L.relu(var([None, 4], "int64")),
    lambda: L.conv2d(var([None, 4, 8, 8]), 6, 3, groups=3),
    lambda: L.elementwise_add(var([None, 4]), var([None, 3], name="w")),
    lambda: L.concat([var([2, 3]), var([2, 2], name="w")], axis=0),
    lambda: var([2, 3]) + "a",
]


@pytest.mark.parametrize("call", LOCATED, ids=range(len(LOCATED)))
def test_message_ends_with_the_users_line(call):
    line = call.__code__.co_firstlineno
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    found = re.search(r"at (\S+):(\d+)", str(caught.value))
    assert found is not None, str(caught.value)
    assert os.path.basename(found.group(1)) == HERE
    assert int(found.group(2)) == line


def test_a_refused_layer_leaves_no_operator():
    x = var([None, 4])
    before = len(fluid.default_main_program().global_block().ops)
    with pytest.raises(ValueError):
        L.elementwise_add(x, var([None, 3], name="w"))
    assert len(fluid.default_main_program().global_block().ops) == before
