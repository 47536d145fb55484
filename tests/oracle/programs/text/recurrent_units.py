"""Recurrent layers beyond the plain LSTM and GRU: single steps, projections, initial states, other activations."""

from program_model import Model, lengths, ragged, repeat

VARIANTS = (
    "lstm_unit",
    "gru_unit",
    "lstmp",
    "initial_states",
    "activations",
    "basic_lstm",
    "basic_gru",
    "beam_free_decoder",
)


def data(rng):
    return {
        "seq": ragged(rng, lengths(rng, 3, 1, 6), 4),
        "x": rng.uniform(-1, 1, (3, 4)).astype("float32"),
        "pad": rng.uniform(-1, 1, (3, 5, 4)).astype("float32"),
        "y": rng.uniform(-1, 1, (3, 1)).astype("float32"),
    }


def build(fluid, variant):
    layers = fluid.layers
    seq = layers.data("seq", [4], lod_level=1)
    x = layers.data("x", [4])
    pad = layers.data("pad", [3, 5, 4], append_batch_size=False)
    y = layers.data("y", [1])
    if variant == "lstm_unit":
        rnn = layers.DynamicRNN()
        with rnn.block():
            word = rnn.step_input(seq)
            h, c = rnn.memory(shape=[4], value=0.1), rnn.memory(init=x, need_reorder=True)
            hidden, cell = layers.lstm_unit(word, h, c, forget_bias=1.0)
            rnn.update_memory(h, hidden)
            rnn.update_memory(c, cell)
            rnn.output(hidden, cell)
        hidden, cell = rnn()
        out = layers.concat([layers.sequence_pool(hidden, "last"), layers.sequence_pool(cell, "sum")], axis=1)
    elif variant == "gru_unit":
        rnn = layers.DynamicRNN()
        with rnn.block():
            word = rnn.step_input(seq)
            state = rnn.memory(init=x, need_reorder=True)
            new, reset, gate = layers.gru_unit(layers.fc(word, 12), state, 12, activation="relu", origin_mode=True)
            rnn.update_memory(state, new)
            rnn.output(new)
        out = layers.sequence_last_step(rnn())
    elif variant == "lstmp":
        proj, cell = layers.dynamic_lstmp(layers.fc(seq, 16), 16, 3, cell_clip=0.5, proj_clip=0.4)
        back, _ = layers.dynamic_lstmp(
            layers.fc(proj, 16), 16, 3, is_reverse=True, use_peepholes=False, proj_activation="identity"
        )
        out = layers.concat([layers.sequence_pool(back, "first"), layers.sequence_pool(cell, "average")], axis=1)
    elif variant == "initial_states":
        h0, c0 = layers.fc(x, 4, act="tanh"), layers.fc(x, 4)
        hidden, cell = layers.dynamic_lstm(layers.fc(seq, 16), 16, h_0=h0, c_0=c0)
        gru = layers.dynamic_gru(layers.fc(hidden, 12), 4, h_0=h0, is_reverse=True, origin_mode=True)
        out = layers.concat([layers.sequence_pool(gru, "max"), layers.sequence_pool(hidden, "last")], axis=1)
    elif variant == "activations":
        hidden, cell = layers.dynamic_lstm(
            layers.fc(seq, 16),
            16,
            use_peepholes=False,
            gate_activation="sigmoid",
            cell_activation="relu",
            candidate_activation="tanh",
        )
        gru = layers.dynamic_gru(
            layers.fc(seq, 12), 4, gate_activation="sigmoid", candidate_activation="relu", bias_attr=False
        )
        out = layers.concat([layers.sequence_pool(gru, "sqrt"), layers.sequence_pool(cell, "max")], axis=1)
    elif variant == "basic_lstm":
        outs, last_h, last_c = fluid.contrib.layers.basic_lstm(pad, None, None, 4, num_layers=2, bidirectional=True)
        out = layers.concat([layers.reduce_mean(outs, dim=1), layers.reduce_sum(last_h, dim=0)], axis=1)
    elif variant == "basic_gru":
        outs, last_h = fluid.contrib.layers.basic_gru(pad, None, 4, num_layers=2)
        out = layers.concat([layers.reduce_mean(outs, dim=1), layers.reduce_sum(last_h, dim=0)], axis=1)
    else:
        cell = layers.GRUCell(4)
        helper = layers.TrainingHelper(pad, layers.fill_constant([3], "int32", 5))
        decoder = layers.BasicDecoder(cell, helper, output_fn=lambda t: layers.fc(t, 3, num_flatten_dims=len(t.shape) - 1))
        outs, _ = layers.dynamic_decode(decoder, inits=cell.get_initial_states(pad))
        out = layers.reduce_mean(outs.cell_outputs, dim=1)
    predict = layers.fc(out, 1)
    loss = layers.mean(layers.square_error_cost(predict, y))
    return Model(loss, repeat(data), [out], train=lambda: fluid.optimizer.Adam(0.02).minimize(loss))
