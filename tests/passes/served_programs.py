"""Small programs as authors of Fluid models write them, one for each pass that no family of tests/programs calls for.

Each builds into the current Programs and gives (feed, variables to fetch).
"""

import numpy as np

import millstream.fluid as fluid
from millstream.fluid.layer_helper import LayerHelper

layers = fluid.layers
WIDTH = 8


def ragged(count_of, make):
    """A fed sequence batch of three."""
    lengths = [[3, 1, 4]]
    return fluid.create_lod_tensor(make(sum(count_of(n) for n in lengths[0])), lengths, fluid.CPUPlace())


def ids(words):
    return ragged(lambda n: n, lambda rows: np.random.randint(0, words, (rows, 1)).astype("int64"))


def rows_of(width):
    return ragged(lambda n: n, lambda rows: np.random.uniform(-1, 1, (rows, width)).astype("float32"))


def vgg_with_dropout():
    """The book's image classifier: dropout as it stands by default scales its input in a test Program."""
    image = layers.data("image", [3, 16, 16])
    net = fluid.nets.img_conv_group(
        image, conv_num_filter=[4, 4], pool_size=2, pool_stride=2, conv_act="relu", conv_with_batchnorm=True,
        conv_batchnorm_drop_rate=[0.3, 0], pool_type="max",
    )  # fmt: skip
    net = layers.fc(layers.dropout(net, 0.5), 16)
    net = layers.dropout(layers.batch_norm(net, act="relu"), 0.5)
    return {"image": np.random.randn(2, 3, 16, 16).astype("float32")}, [layers.fc(net, 4, act="softmax")]


def norm_of_primitives(x, begin_norm_axis=1, epsilon=1e-6, name=None):
    """Layer normalisation as encoders wrote it before the operator was fast."""
    helper = LayerHelper("norm", **locals())
    mean = layers.reduce_mean(x, dim=begin_norm_axis, keep_dim=True)
    shifted = layers.elementwise_sub(x=x, y=mean, axis=0)
    variance = layers.reduce_mean(layers.square(shifted), dim=begin_norm_axis, keep_dim=True)
    normed = layers.elementwise_mul(x=shifted, y=layers.rsqrt(variance + epsilon), axis=0)
    width = [x.shape[-1]]
    scale = helper.create_parameter(
        attr=fluid.ParamAttr(initializer=fluid.initializer.Uniform(0.5, 1.5)), shape=width, dtype="float32"
    )
    bias = helper.create_parameter(attr=fluid.ParamAttr(), shape=width, dtype="float32", is_bias=True)
    return layers.elementwise_add(x=layers.elementwise_mul(x=normed, y=scale, axis=-1), y=bias, axis=-1)


def encoder_with_own_norm():
    """Feed-forward layers of an encoder with residual sums and the norm above, over [batch, time, width]."""
    x = fluid.data("x", [None, 5, WIDTH])
    for _ in range(2):
        inner = layers.fc(x, 16, num_flatten_dims=2, act="relu")
        x = norm_of_primitives(layers.elementwise_add(x, layers.fc(inner, WIDTH, num_flatten_dims=2)), begin_norm_axis=2)
    return {"x": np.random.randn(3, 5, WIDTH).astype("float32")}, [x]


def ctr_of_slots():
    """A click model: each slot a bag of sparse ids, summed, all joined, three layers."""
    slots = [layers.data(f"slot{i}", [1], dtype="int64", lod_level=1) for i in range(4)]
    embedded = [
        layers.embedding(s, [50, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="SparseFeatFactors")) for s in slots
    ]
    net = layers.concat([layers.sequence_pool(e, "sum") for e in embedded], axis=1)
    for _ in range(3):
        net = layers.fc(net, 16, act="relu")
    return {s.name: ids(50) for s in slots}, [layers.fc(net, 2, act="softmax")]


def query_on_items():
    """Every item of a session meets the user and the query: their vectors are spread over the items, joined, scored."""
    items = layers.data("items", [WIDTH], lod_level=1)
    user, query = layers.data("user", [6]), layers.data("query", [4])
    joined = layers.concat([items, layers.sequence_expand(user, items), layers.sequence_expand(query, items)], axis=1)
    shares = layers.sequence_softmax(layers.fc(layers.fc(joined, 16, act="relu"), 1))
    feed = {"items": rows_of(WIDTH), "user": np.random.randn(3, 6).astype("float32"),
            "query": np.random.randn(3, 4).astype("float32")}  # fmt: skip
    return feed, [shares]


def attentive_reader():
    """A reader that looks over its whole text before each of its steps, and an LSTM that remembers what it saw."""
    words = layers.data("words", [1], dtype="int64", lod_level=1)
    text = layers.embedding(words, [40, WIDTH])
    start = layers.fc(layers.sequence_pool(text, "last"), WIDTH, act="tanh")
    rnn = layers.DynamicRNN()
    with rnn.block():
        rnn.step_input(text)
        seen = rnn.static_input(text)
        hidden, cell = rnn.memory(shape=[WIDTH], value=0.0), rnn.memory(init=start, need_reorder=True)
        joined = layers.concat([seen, layers.sequence_expand(cell, seen)], axis=1)
        shares = layers.sequence_softmax(layers.fc(joined, 1, act="relu"))
        mean = layers.sequence_pool(layers.elementwise_mul(seen, layers.reshape(shares, [-1]), axis=0), "sum")
        new, new_cell = layers.lstm_unit(mean, hidden, cell, forget_bias=1.0)
        rnn.update_memory(hidden, new)
        rnn.update_memory(cell, new_cell)
        rnn.output(new)
    best = layers.sequence_pool(rnn(), "max")
    return {"words": ids(40)}, [layers.fc(best, 3, act="softmax")]


# program: (changes that each pass must make)
SERVED = {
    vgg_with_dropout: {"set_is_test": 3, "fold_conv_bn": 2},
    encoder_with_own_norm: {"fuse_layer_norm": 2, "fuse_add_layer_norm": 2},
    ctr_of_slots: {"fuse_seqpool_concat": 1, "fuse_repeated_fc_relu": 1},
    query_on_items: {"fuse_seqexpand_concat_fc": 1},
    attentive_reader: {"fuse_attention_lstm": 1},
}
