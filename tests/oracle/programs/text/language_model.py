"""A padded language model on StaticRNN; the same on layers.rnn with an LSTM cell and lengths."""

from program_model import Model, repeat

VARIANTS = ("static_rnn", "lstm_cell", "gru_cell")
WORDS, HIDDEN, STEPS = 30, 6, 5


def data(rng):
    ids = rng.randint(0, WORDS, (4, STEPS + 1)).astype("int64")
    return {"x": ids[:, :-1, None], "y": ids[:, 1:, None], "len": rng.randint(1, STEPS + 1, (4,)).astype("int64")}


def build(fluid, variant):
    layers = fluid.layers
    x = layers.data(name="x", shape=[4, STEPS, 1], append_batch_size=False, dtype="int64")
    y = layers.data(name="y", shape=[4, STEPS, 1], append_batch_size=False, dtype="int64")
    length = fluid.data(name="len", shape=[None], dtype="int64")
    emb = layers.embedding(x, size=[WORDS, 8])
    if variant == "static_rnn":
        init = layers.fill_constant([4, HIDDEN], "float32", 0.0)
        time_major = layers.transpose(emb, perm=[1, 0, 2])
        rnn = layers.StaticRNN()
        with rnn.step():
            word = rnn.step_input(time_major)
            prev = rnn.memory(init=init)
            hidden = layers.fc(input=[word, prev], size=HIDDEN, act="tanh")
            rnn.update_memory(prev, hidden)
            rnn.step_output(hidden)
        out = layers.transpose(rnn(), perm=[1, 0, 2])
    else:
        cell = layers.LSTMCell(HIDDEN) if variant == "lstm_cell" else layers.GRUCell(HIDDEN)
        out, _ = layers.rnn(cell, emb, sequence_length=length)
    logits = layers.fc(out, size=WORDS, num_flatten_dims=2)
    cost = layers.softmax_with_cross_entropy(logits, y)
    mask = layers.unsqueeze(layers.sequence_mask(length, maxlen=STEPS, dtype="float32"), axes=[2])
    loss = layers.reduce_sum(layers.elementwise_mul(cost, mask)) / 20.0
    return Model(
        loss,
        repeat(data),
        [out],
        train=lambda: fluid.optimizer.Adam(0.02, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0)).minimize(loss),
    )
