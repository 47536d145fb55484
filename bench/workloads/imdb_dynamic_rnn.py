"""Sentiment by an LSTM whose cell is written out in a DynamicRNN, over 16 unpadded reviews, Adam."""

import described
import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, BATCH = 5147, 128, 128, 16
LENGTHS = RNG.randint(20, 120, BATCH)
FEED = {
    "words": described.Sequences(RNG.randint(0, VOCABULARY, (int(LENGTHS.sum()), 1)).astype("int64"), LENGTHS),
    "label": RNG.randint(0, 2, (BATCH, 1)).astype("int64"),
}
OPTIMIZER = described.Optimizer("adam", 0.002)
TOLERANCE = described.ADAM_TOLERANCE
NAMES = ("forget", "input", "output", "candidate")
GATES = (1, 0, 3, 2)  # torch's and Paddle 3's order (input, forget, candidate, output) of those


def fluid_model(fluid):
    from described import fluid_side

    layers = fluid.layers
    words = fluid_side.variable(fluid, "words", FEED["words"])
    label = fluid_side.variable(fluid, "label", FEED["label"])
    sentence = layers.fc(layers.embedding(words, [VOCABULARY, WIDTH]), HIDDEN, act="tanh")
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(sentence)
        hidden = rnn.memory(value=0.0, shape=[HIDDEN])
        cell = rnn.memory(value=0.0, shape=[HIDDEN])

        def gate():
            return layers.sums([layers.fc(word, HIDDEN), layers.fc(hidden, HIDDEN, bias_attr=False)])

        forget, enter, leave = (layers.sigmoid(gate()) for _ in range(3))
        new_cell = layers.sums([forget * cell, enter * layers.tanh(gate())])
        new_hidden = leave * layers.tanh(new_cell)
        rnn.update_memory(cell, new_cell)
        rnn.update_memory(hidden, new_hidden)
        rnn.output(new_hidden)
    prediction = layers.fc(layers.sequence_last_step(rnn()), 2, act="softmax")
    loss = layers.mean(layers.cross_entropy(prediction, label))
    fluid_side.minimize(fluid, OPTIMIZER, loss)
    return {name: fluid_side.value(fluid, array) for name, array in FEED.items()}, loss


def gathered(parameters):
    """(weight of words, of states, bias) of all gates, [in, 4 * HIDDEN] in the order of GATES."""
    gates = [[next(parameters) for _ in range(3)] for _ in NAMES]
    return [np.concatenate([gates[k][what] for k in GATES], -1) for what in (0, 2, 1)]


def torch_step(parameters, compiled=False):
    """nn.LSTM over packed sequences: what a user of torch writes instead."""
    import torch
    from described import torch_side
    from torch import nn
    from torch.nn.utils.rnn import pack_sequence

    values = iter(parameters.values())
    table = torch_side.set_parameters(nn.Embedding(VOCABULARY, WIDTH), {"weight": torch_side.take(values, 1)[0]})
    project, lstm = torch_side.linear(values), nn.LSTM(HIDDEN, HIDDEN)
    weight, hidden, bias = (torch.from_numpy(v) for v in gathered(values))
    torch_side.set_parameters(
        lstm, {"weight_ih_l0": weight.t(), "weight_hh_l0": hidden.t(), "bias_ih_l0": bias, "bias_hh_l0": 0 * bias}
    )
    lstm.bias_hh_l0.requires_grad_(False)  # the cell has one bias a gate
    head = torch_side.linear(values)
    modules = (table, project, lstm, head)
    optimizer = torch_side.make_optimizer(OPTIMIZER, [p for m in modules for p in m.parameters() if p.requires_grad])
    words = FEED["words"]

    def run():
        x = torch.tanh(project(table(torch.from_numpy(words.values)[:, 0])))
        packed = pack_sequence(list(x.split(words.lengths)), enforce_sorted=False)
        last = lstm(packed)[1][0][0]
        return nn.functional.cross_entropy(head(last), torch.from_numpy(FEED["label"])[:, 0])

    return torch_side.training_step(torch.compile(run) if compiled else run, optimizer)


def jax_step(parameters):
    import jax
    import jax.numpy as jnp
    from described import jax_side

    values = iter(parameters.values())
    taken = [next(values) for _ in range(3)]
    flat = [*taken, *gathered(values), *values]

    def loss(parameters, feed):
        n = jax_side.Layers(parameters, feed)
        x = n.fc(n.embed(feed["words"], VOCABULARY, WIDTH), HIDDEN, act="tanh", dims=2)
        weight, hidden_weight, bias = n.take(), n.take(), n.take()

        def step(gates, states):
            hidden, cell = states
            i, f, c, o = jnp.split(gates + hidden @ hidden_weight, 4, 1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
            return jax.nn.sigmoid(o) * jnp.tanh(cell), cell

        states = n.recurrent(x @ weight + bias, HIDDEN, step, 2, False)
        return n.classify(states[:, -1], 2, feed["label"]), n.statistics

    return jax_side.training_step(loss, jax_side.narrow(described.dense(FEED)), OPTIMIZER, flat)


def paddle3_step(parameters):
    import paddle
    from described import paddle3_side
    from paddle import nn

    values = iter(parameters.values())
    table = paddle3_side.set_parameters(nn.Embedding(VOCABULARY, WIDTH), {"weight": next(values)})
    project, lstm = paddle3_side.linear(values), nn.LSTM(HIDDEN, HIDDEN)
    weight, hidden, bias = gathered(values)
    values_of_lstm = {"weight_ih_l0": weight.T, "weight_hh_l0": hidden.T, "bias_ih_l0": bias, "bias_hh_l0": 0 * bias}
    paddle3_side.set_parameters(lstm, values_of_lstm)
    head = paddle3_side.linear(values)
    modules = (table, project, lstm, head)
    # The cell has one bias a gate. (Without a gradient for the other, Paddle 3's backward fails.)
    trained = [p for m in modules for p in m.parameters() if p is not lstm.bias_hh_l0]
    optimizer = paddle3_side.make_optimizer(OPTIMIZER, trained)
    feed = described.dense(FEED)

    def run():
        fed = paddle3_side.tensors(feed)
        x = paddle.tanh(project(table(fed["words"].squeeze(-1))))
        last = lstm(x, sequence_length=fed[described.LENGTHS])[1][0][0]
        return nn.functional.cross_entropy(head(last), fed["label"])

    return paddle3_side.training_step(run, optimizer)
