"""Sequences of sequences and the sequence layers around them."""

import numpy as np

from program_model import Model, lengths, ragged, ragged_ids, repeat

VARIANTS = ("paragraphs", "expand", "zoo", "pad")


def data(rng):
    outer = lengths(rng, 3, 1, 4)
    inner = lengths(rng, sum(outer), 1, 5)
    nest = rng.uniform(-1, 1, (sum(inner), 4)).astype("float32"), [outer, inner]
    lens = lengths(rng, 3, 2, 6)
    return {
        "nest": nest,
        "x": rng.uniform(-1, 1, (3, 4)).astype("float32"),
        "y": rng.uniform(-1, 1, (3, 1)).astype("float32"),
        "seq": ragged(rng, lens, 4),
        "seq2": ragged(rng, lengths(rng, 3, 1, 4), 4),
        "ids": ragged_ids(rng, lens, 9),
    }


def build(fluid, variant):
    layers = fluid.layers
    x = layers.data("x", [4])
    y = layers.data("y", [1])
    nest = layers.data("nest", [4], lod_level=2)
    seq = layers.data("seq", [4], lod_level=1)
    seq2 = layers.data("seq2", [4], lod_level=1)
    ids = layers.data("ids", [1], dtype="int64", lod_level=1)
    extra = []
    if variant == "paragraphs":
        words = layers.fc(nest, 6, act="tanh")
        sentences = layers.sequence_pool(words, "average")
        lstm, _ = layers.dynamic_lstm(layers.fc(sentences, 16), 16)
        out = layers.sequence_pool(lstm, "max")
        extra = [sentences, words]
    elif variant == "expand":
        h = layers.fc(x, 4, act="tanh")
        by_outer = layers.sequence_expand(h, nest, ref_level=0)
        as_seq = layers.sequence_expand_as(layers.fc(h, 4), seq)
        out = layers.elementwise_add(
            layers.sequence_pool(layers.elementwise_mul(as_seq, seq), "sum"), layers.sequence_pool(layers.fc(seq, 4), "last")
        )
        extra = [by_outer, as_seq]
    elif variant == "zoo":
        h = layers.fc(seq, 4, act="tanh")
        # both inputs want a gradient: 1.8.5 cuts the gradient in wrong places when one of them does not
        both = layers.sequence_concat([h, layers.fc(seq2, 4)])
        back = layers.sequence_reverse(both)
        soft = layers.sequence_softmax(layers.fc(back, 1, bias_attr=False))  # a bias would only move by rounding errors
        weighted = layers.elementwise_mul(back, soft, axis=0)
        row = layers.row_conv(weighted, 2)
        conv = layers.sequence_conv(row, 4, filter_size=3, act="relu")
        out = layers.concat(
            [layers.sequence_first_step(conv), layers.sequence_pool(conv, "sqrt"), layers.sequence_last_step(weighted)],
            axis=1,
        )
        extra = [both, back, soft, layers.sequence_enumerate(ids, win_size=2, pad_value=0), layers.sequence_reshape(seq, 2)]
    else:
        h = layers.fc(seq, 4, act="tanh")
        padded, length = layers.sequence_pad(h, layers.assign(np.zeros(1, "float32")), maxlen=6)
        mixed = layers.fc(padded, 4, num_flatten_dims=2)
        back = layers.sequence_unpad(mixed, length)
        mask = layers.sequence_mask(length, maxlen=6, dtype="float32")
        out = layers.sequence_pool(back, "sum") + layers.reduce_sum(padded * layers.unsqueeze(mask, [2]), dim=1)
        extra = [padded, length, back, mask]
    predict = layers.fc(out, 1)
    loss = layers.mean(layers.square_error_cost(predict, y))
    return Model(loss, repeat(data), [predict] + extra, train=lambda: fluid.optimizer.Adam(0.01).minimize(loss))
