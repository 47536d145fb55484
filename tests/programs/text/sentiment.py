"""Sentiment classifiers over word sequences of several lengths: bag of words, convolution, GRU, LSTM, bidirectional LSTM."""

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("bow", "cnn", "gru", "lstm", "bilstm", "textcnn_padded")
BATCH, WORDS, WIDTH, HIDDEN, CLASSES, TIME = 5, 40, 8, 6, 2, 8


def data(rng):
    return {
        "words": ragged_ids(rng, lengths(rng, BATCH, 3, TIME), WORDS),
        "label": rng.randint(0, CLASSES, (BATCH, 1)).astype("int64"),
    }


def bow_net(fluid, emb):
    bow = fluid.layers.sequence_pool(input=emb, pool_type="sum")
    return fluid.layers.fc(input=fluid.layers.tanh(bow), size=8, act="tanh")


def cnn_net(fluid, emb):
    parts = [
        fluid.nets.sequence_conv_pool(input=emb, num_filters=HIDDEN, filter_size=k, act="tanh", pool_type="max")
        for k in (3, 4)
    ]
    return fluid.layers.fc(input=parts, size=8)


def gru_net(fluid, emb):
    gru = fluid.layers.dynamic_gru(input=fluid.layers.fc(input=emb, size=HIDDEN * 3), size=HIDDEN, is_reverse=False)
    return fluid.layers.fc(input=fluid.layers.tanh(fluid.layers.sequence_pool(gru, "max")), size=8, act="tanh")


def lstm_net(fluid, emb):
    gates = fluid.layers.fc(input=emb, size=HIDDEN * 4)
    lstm_h, _ = fluid.layers.dynamic_lstm(input=gates, size=HIDDEN * 4, is_reverse=False)
    return fluid.layers.fc(input=fluid.layers.tanh(fluid.layers.sequence_pool(lstm_h, "max")), size=8, act="tanh")


def bilstm_net(fluid, emb):
    lasts = []
    for reverse in (False, True):
        gates = fluid.layers.fc(input=emb, size=HIDDEN * 4)
        hidden, _ = fluid.layers.dynamic_lstm(input=gates, size=HIDDEN * 4, is_reverse=reverse, use_peepholes=False)
        lasts.append(fluid.layers.sequence_last_step(input=fluid.layers.tanh(hidden)))
    return fluid.layers.fc(input=fluid.layers.concat(input=lasts, axis=1), size=8, act="tanh")


def textcnn_padded(fluid, emb):
    """The same words padded to one length; two-dimensional convolutions as wide as a word vector."""
    layers = fluid.layers
    padded, _ = layers.sequence_pad(emb, layers.fill_constant([1], "float32", 0.0), maxlen=TIME)
    image = layers.unsqueeze(padded, axes=[1])
    parts = []
    for k in (2, 3):
        conv = layers.conv2d(image, num_filters=HIDDEN, filter_size=(k, WIDTH), act="relu")
        parts.append(layers.pool2d(conv, pool_size=(TIME - k + 1, 1), pool_type="max"))
    return layers.fc(layers.concat(parts, axis=1), size=8, act="tanh")


NETS = {
    "bow": bow_net,
    "cnn": cnn_net,
    "gru": gru_net,
    "lstm": lstm_net,
    "bilstm": bilstm_net,
    "textcnn_padded": textcnn_padded,
}


def build(fluid, variant):
    layers = fluid.layers
    words = fluid.data(name="words", shape=[None, 1], dtype="int64", lod_level=1)
    label = fluid.data(name="label", shape=[None, 1], dtype="int64")
    emb = layers.embedding(input=words, size=[WORDS, WIDTH], is_sparse=variant in ("bow", "lstm"))
    prediction = layers.fc(input=NETS[variant](fluid, emb), size=CLASSES, act="softmax")
    avg_cost = layers.mean(x=layers.cross_entropy(input=prediction, label=label))
    acc = layers.accuracy(input=prediction, label=label)

    def train():
        fluid.optimizer.Adagrad(learning_rate=0.02).minimize(avg_cost)

    return Model(avg_cost, repeat(data, 5), [prediction, acc], train)
