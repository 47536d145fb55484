"""Recurrent language models (Zaremba et al., 2014): padded with states carried over between batches, and over sequences.

static: LSTM cells written out in a StaticRNN. unrolled: the same cells in Python loops. lod_lstm, lod_gru: dynamic layers.
"""

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("static", "unrolled", "lod_lstm", "lod_gru")
BATCH, STEPS, WORDS, HIDDEN, LAYERS = 4, 5, 30, 6, 2


def padded(rng):
    ids = rng.randint(0, WORDS, (BATCH, STEPS + 1)).astype("int64")
    return {
        "x": ids[:, :-1, None],
        "y": ids[:, 1:].reshape(-1, 1),
        "init_hidden": rng.uniform(-0.2, 0.2, (LAYERS, BATCH, HIDDEN)).astype("float32"),
        "init_cell": rng.uniform(-0.2, 0.2, (LAYERS, BATCH, HIDDEN)).astype("float32"),
    }


def with_lengths(rng):
    lens = lengths(rng, BATCH, 1, STEPS + 2)
    return {"x": ragged_ids(rng, lens, WORDS), "y": ragged_ids(rng, lens, WORDS)}


def uniform(fluid, bound=0.3):
    return fluid.initializer.UniformInitializer(low=-bound, high=bound)


def cell_parameters(fluid):
    layers = fluid.layers
    weights = [
        layers.create_parameter(
            [HIDDEN * 2, HIDDEN * 4], dtype="float32", name="fc_weight1_%d" % i, default_initializer=uniform(fluid)
        )
        for i in range(LAYERS)
    ]
    biases = [
        layers.create_parameter(
            [HIDDEN * 4],
            dtype="float32",
            name="fc_bias1_%d" % i,
            default_initializer=fluid.initializer.Constant(0.0),
        )
        for i in range(LAYERS)
    ]
    return weights, biases


def lstm_step(fluid, word, pre_hidden, pre_cell, weight, bias):
    layers = fluid.layers
    gate_input = layers.elementwise_add(layers.matmul(x=layers.concat([word, pre_hidden], 1), y=weight), bias)
    i = layers.slice(gate_input, axes=[1], starts=[0], ends=[HIDDEN])
    j = layers.slice(gate_input, axes=[1], starts=[HIDDEN], ends=[HIDDEN * 2])
    f = layers.slice(gate_input, axes=[1], starts=[HIDDEN * 2], ends=[HIDDEN * 3])
    o = layers.slice(gate_input, axes=[1], starts=[HIDDEN * 3], ends=[HIDDEN * 4])
    cell = pre_cell * layers.sigmoid(f) + layers.sigmoid(i) * layers.tanh(j)
    return layers.tanh(cell) * layers.sigmoid(o), cell


def layer_state(fluid, states, k):
    picked = fluid.layers.slice(states, axes=[0], starts=[k], ends=[k + 1])
    return fluid.layers.reshape(picked, shape=[-1, HIDDEN])


def static_lstm(fluid, emb, init_hidden, init_cell):
    """One StaticRNN over all layers; its outputs are the steps' results and, last of each, the carried states."""
    layers = fluid.layers
    weights, biases = cell_parameters(fluid)
    hiddens = [layer_state(fluid, init_hidden, k) for k in range(LAYERS)]
    cells = [layer_state(fluid, init_cell, k) for k in range(LAYERS)]
    time_major = layers.transpose(emb, perm=[1, 0, 2])
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(time_major)
        for k in range(LAYERS):
            pre_hidden, pre_cell = rnn.memory(init=hiddens[k]), rnn.memory(init=cells[k])
            hidden, cell = lstm_step(fluid, word, pre_hidden, pre_cell, weights[k], biases[k])
            rnn.update_memory(pre_hidden, hidden)
            rnn.update_memory(pre_cell, cell)
            rnn.step_output(hidden)
            rnn.step_output(cell)
            word = layers.dropout(hidden, dropout_prob=0.0, dropout_implementation="upscale_in_train")
        rnn.step_output(word)
    return rnn()


def unrolled_lstm(fluid, emb, init_hidden, init_cell):
    layers = fluid.layers
    weights, biases = cell_parameters(fluid)
    hiddens = [layer_state(fluid, init_hidden, k) for k in range(LAYERS)]
    cells = [layer_state(fluid, init_cell, k) for k in range(LAYERS)]
    outs = []
    for word in layers.split(emb, num_or_sections=STEPS, dim=1):
        word = layers.reshape(word, shape=[-1, HIDDEN])
        for k in range(LAYERS):
            hiddens[k], cells[k] = lstm_step(fluid, word, hiddens[k], cells[k], weights[k], biases[k])
            word = hiddens[k]
        outs.append(layers.reshape(word, shape=[1, -1, HIDDEN]))
    return layers.transpose(layers.concat(outs, 0), perm=[1, 0, 2])


def build_padded(fluid, variant):
    layers = fluid.layers
    x = layers.data(name="x", shape=[BATCH, STEPS, 1], dtype="int64", append_batch_size=False)
    y = layers.data(name="y", shape=[BATCH * STEPS, 1], dtype="int64", append_batch_size=False)
    init_hidden, init_cell = (
        layers.data(name=name, shape=[LAYERS, BATCH, HIDDEN], dtype="float32", append_batch_size=False)
        for name in ("init_hidden", "init_cell")
    )
    table = fluid.ParamAttr(name="embedding_para", initializer=uniform(fluid))
    emb = layers.embedding(input=x, size=[WORDS, HIDDEN], dtype="float32", is_sparse=False, param_attr=table)
    kept = []
    if variant == "static":
        outs = static_lstm(fluid, emb, init_hidden, init_cell)
        result = layers.transpose(outs[-1], perm=[1, 0, 2])
        kept = [layers.slice(out, axes=[0], starts=[STEPS - 1], ends=[STEPS]) for out in outs[:-1]]
    else:
        result = unrolled_lstm(fluid, emb, init_hidden, init_cell)
    softmax_weight = layers.create_parameter(
        [HIDDEN, WORDS], dtype="float32", name="softmax_weight", default_initializer=uniform(fluid)
    )
    softmax_bias = layers.create_parameter(
        [WORDS], dtype="float32", name="softmax_bias", default_initializer=fluid.initializer.Constant(0.0)
    )
    projection = layers.matmul(layers.reshape(result, shape=[-1, HIDDEN]), softmax_weight)
    projection = layers.elementwise_add(projection, softmax_bias)
    loss = layers.softmax_with_cross_entropy(logits=projection, label=y, soft_label=False)
    loss = layers.reduce_mean(layers.reshape(loss, shape=[-1, STEPS]), dim=[0])
    loss = layers.reduce_sum(loss)
    loss.persistable = True
    return loss, [result] + kept


def build_lod(fluid, variant):
    layers = fluid.layers
    x = layers.data(name="x", shape=[1], dtype="int64", lod_level=1)
    y = layers.data(name="y", shape=[1], dtype="int64", lod_level=1)
    emb = layers.embedding(
        input=x, size=[WORDS, HIDDEN], is_sparse=True, param_attr=fluid.ParamAttr(learning_rate=10.0)
    )
    if variant == "lod_lstm":
        hidden, _ = layers.dynamic_lstm(layers.fc(emb, HIDDEN * 4, bias_attr=False), HIDDEN * 4)
        hidden, _ = layers.dynamic_lstm(layers.fc(hidden, HIDDEN * 4), HIDDEN * 4, use_peepholes=False)
    else:
        hidden = layers.dynamic_gru(layers.fc(emb, HIDDEN * 3), HIDDEN)
    fc = layers.fc(input=hidden, size=WORDS, act="softmax")
    return layers.mean(x=layers.cross_entropy(input=fc, label=y)), [hidden]


def build(fluid, variant):
    made = with_lengths if variant.startswith("lod") else padded
    loss, fetch = (build_lod if variant.startswith("lod") else build_padded)(fluid, variant)

    def train():
        clip = fluid.clip.GradientClipByGlobalNorm(clip_norm=5.0)
        fluid.optimizer.SGD(learning_rate=0.5, grad_clip=clip).minimize(loss)

    return Model(loss, repeat(made, 5), fetch, train)
