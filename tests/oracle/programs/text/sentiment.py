"""Review classifiers: convolution over sequences with Adam, stacked alternating LSTMs with Adagrad."""

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("conv", "lstm")
VOCABULARY = 60


def data(rng):
    return {"words": ragged_ids(rng, lengths(rng, 6, 1, 8), VOCABULARY), "label": rng.randint(0, 2, (6, 1)).astype("int64")}


def convolution_net(fluid, words):
    emb = fluid.layers.embedding(input=words, size=[VOCABULARY, 8], is_sparse=True)
    conv_3 = fluid.nets.sequence_conv_pool(input=emb, num_filters=6, filter_size=3, act="tanh", pool_type="sqrt")
    conv_4 = fluid.nets.sequence_conv_pool(input=emb, num_filters=6, filter_size=4, act="tanh", pool_type="max")
    return fluid.layers.fc(input=[conv_3, conv_4], size=2, act="softmax")


def stacked_lstm_net(fluid, words):
    emb = fluid.layers.embedding(input=words, size=[VOCABULARY, 8])
    fc1 = fluid.layers.fc(input=emb, size=24)
    lstm1, cell1 = fluid.layers.dynamic_lstm(input=fc1, size=24)
    inputs = [fc1, lstm1]
    for i in range(2, 4):
        fc = fluid.layers.fc(input=inputs, size=24)
        lstm, cell = fluid.layers.dynamic_lstm(input=fc, size=24, is_reverse=(i % 2) == 0)
        inputs = [fc, lstm]
    fc_last = fluid.layers.sequence_pool(input=inputs[0], pool_type="max")
    lstm_last = fluid.layers.sequence_pool(input=inputs[1], pool_type="max")
    return fluid.layers.fc(input=[fc_last, lstm_last], size=2, act="softmax")


def build(fluid, variant):
    words = fluid.layers.data(name="words", shape=[1], dtype="int64", lod_level=1)
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    prediction = (convolution_net if variant == "conv" else stacked_lstm_net)(fluid, words)
    loss = fluid.layers.mean(fluid.layers.cross_entropy(input=prediction, label=label))
    acc = fluid.layers.accuracy(input=prediction, label=label)
    optimizer = (
        fluid.optimizer.Adam(learning_rate=0.01) if variant == "conv" else fluid.optimizer.Adagrad(learning_rate=0.02)
    )
    return Model(loss, repeat(data), [prediction, acc], train=lambda: optimizer.minimize(loss))
