"""Translation training: a GRU encoder and a DynamicRNN decoder, with and without attention over the encoder."""

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("plain", "attention")
WORDS, HIDDEN = 30, 6


def data(rng):
    trg = lengths(rng, 4, 1, 6)
    return {
        "src": ragged_ids(rng, lengths(rng, 4, 1, 6), WORDS),
        "trg": ragged_ids(rng, trg, WORDS),
        "next": ragged_ids(rng, trg, WORDS),
    }


def build(fluid, variant):
    layers = fluid.layers
    src = layers.data(name="src", shape=[1], dtype="int64", lod_level=1)
    trg = layers.data(name="trg", shape=[1], dtype="int64", lod_level=1)
    label = layers.data(name="next", shape=[1], dtype="int64", lod_level=1)
    emb = layers.embedding(input=src, size=[WORDS, 8], is_sparse=True, param_attr=fluid.ParamAttr(name="vemb"))
    forward = layers.dynamic_gru(input=layers.fc(emb, HIDDEN * 3, bias_attr=False), size=HIDDEN)
    encoded = layers.concat(
        [forward, layers.dynamic_gru(input=layers.fc(emb, HIDDEN * 3, bias_attr=False), size=HIDDEN, is_reverse=True)],
        axis=1,
    )
    encoded_proj = layers.fc(encoded, HIDDEN, bias_attr=False)
    boot = layers.fc(layers.sequence_last_step(input=encoded), HIDDEN, act="tanh")
    trg_emb = layers.embedding(input=trg, size=[WORDS, 8], is_sparse=True, param_attr=fluid.ParamAttr(name="vemb"))

    def attend(sequence, projected, state):
        state_proj = layers.fc(state, HIDDEN, bias_attr=False)
        expanded = layers.sequence_expand(x=state_proj, y=projected)
        mixed = layers.concat([projected, expanded], axis=1)
        weights = layers.sequence_softmax(layers.fc(mixed, 1, act="tanh", bias_attr=False))
        weights = layers.reshape(x=weights, shape=[-1])
        scaled = layers.elementwise_mul(x=sequence, y=weights, axis=0)
        return layers.sequence_pool(input=scaled, pool_type="sum")

    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(trg_emb)
        state = rnn.memory(init=boot, need_reorder=True)
        if variant == "attention":
            vec, proj = rnn.static_input(encoded), rnn.static_input(encoded_proj)
            context = attend(vec, proj, state)
            gates = layers.fc([context, word], HIDDEN * 3, bias_attr=False)
            hidden, _, _ = layers.gru_unit(input=gates, hidden=state, size=HIDDEN * 3)
        else:
            hidden = layers.fc(input=[word, state], size=HIDDEN, act="tanh")
        out = layers.fc(hidden, WORDS, act="softmax")
        rnn.update_memory(state, hidden)
        rnn.output(out)
    prediction = rnn()
    cost = layers.cross_entropy(input=prediction, label=label)
    avg_cost = layers.mean(cost)
    return Model(
        avg_cost, repeat(data), [prediction], train=lambda: fluid.optimizer.Adagrad(learning_rate=0.05).minimize(avg_cost)
    )
