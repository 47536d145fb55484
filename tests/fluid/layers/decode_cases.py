"""Networks of cells and decoders, run with known parameters; `run_all(fluid)` works with Fluid 1.8.5 as well.

``recorded/decoding.json`` holds what 1.8.5 gives.
"""

import numpy as np

FEED = {
    "t3": np.random.RandomState(0).rand(3, 5, 4).astype("float32"),
    "len0": np.array([2, 5, 3], "int64"),
}


def run(fluid, build, steps=1):
    """Values and LoD of what `build(fluid, t, n)` returns, at each step."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(main, startup):
        t, n = fluid.data("t3", [None, 5, 4]), fluid.data("len0", [None], "int64")
        fetched = build(fluid, t, n)
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        numbers = np.random.RandomState(3)
        for param in sorted(main.all_parameters(), key=lambda p: p.name):
            value = (numbers.rand(*param.shape) - 0.5).astype("float32")
            fluid.global_scope().find_var(param.name).get_tensor().set(value, fluid.CPUPlace())
        found = []
        for _ in range(steps):
            values = exe.run(main, feed=FEED, fetch_list=fetched, return_numpy=False)
            found.append([np.array(v).tolist() for v in values])
        return found


def embedded(fluid):
    return lambda ids: fluid.embedding(ids, [10, 4], param_attr="emb")


def beam(cell_class, **options):
    def build(fluid, t, n):
        cell = getattr(fluid.layers, cell_class)(4)
        _, states = fluid.layers.rnn(cell, t, sequence_length=n)
        decoder = fluid.layers.BeamSearchDecoder(
            cell,
            start_token=0,
            end_token=1,
            beam_size=3,
            embedding_fn=embedded(fluid),
            output_fn=lambda x: fluid.layers.fc(x, 10, num_flatten_dims=len(x.shape) - 1, bias_attr=False),
        )
        found = fluid.layers.dynamic_decode(decoder, inits=states, max_step_num=6, return_length=True, **options)
        return [found[0], found[2]]

    return build


def teacher_forced(train=False, **options):
    def build(fluid, t, n):
        layers = fluid.layers
        t.stop_gradient = False
        encoded = layers.fc(t, 4, num_flatten_dims=2)
        _, states = layers.rnn(layers.LSTMCell(4), encoded, sequence_length=n, is_reverse=True)
        helper = layers.TrainingHelper(t, n)
        decoder = layers.BasicDecoder(layers.LSTMCell(4), helper, lambda x: layers.fc(x, 6))
        found = layers.dynamic_decode(decoder, inits=states, return_length=True, **options)
        if not train:
            return [found[0].cell_outputs, found[0].sample_ids, found[2], *found[1]]
        loss = layers.mean(layers.square(found[0].cell_outputs))
        fluid.optimizer.SGD(0.5).minimize(loss)
        return [loss]

    return build


def greedy(fluid, t, n):
    layers = fluid.layers
    cell = layers.GRUCell(4)
    start = layers.fill_constant_batch_size_like(n, [-1], "int64", 0)
    helper = layers.GreedyEmbeddingHelper(embedded(fluid), start, 1)
    decoder = layers.BasicDecoder(cell, helper, lambda x: layers.fc(x, 10))
    states = cell.get_initial_states(t, init_value=0.3)
    found = layers.dynamic_decode(decoder, inits=states, max_step_num=5, return_length=True)
    return [found[0].cell_outputs, found[0].sample_ids, found[2]]


def stacked_lstm(fluid, t, n):
    layers = fluid.layers
    t.stop_gradient = False
    x = layers.fc(t, 4, num_flatten_dims=2)
    out, hidden, cell = fluid.contrib.layers.basic_lstm(
        x, None, None, 4, sequence_length=n, num_layers=2, bidirectional=True
    )
    loss = layers.mean(out) + layers.mean(hidden) + layers.mean(cell)
    fluid.optimizer.SGD(0.5).minimize(loss)
    return [loss]


def tiled(fluid, t, n):
    return [fluid.layers.BeamSearchDecoder.tile_beam_merge_with_batch(t, 2)]


CASES = {
    "beam_lstm": (beam("LSTMCell"), 1),
    "beam_gru_test": (beam("GRUCell", is_test=True, impute_finished=True), 1),
    "teacher_forced": (teacher_forced(), 1),
    "teacher_forced_imputed": (teacher_forced(impute_finished=True, max_step_num=3, is_test=True), 1),
    "teacher_forced_train": (teacher_forced(train=True), 5),
    "greedy": (greedy, 1),
    "stacked_lstm_train": (stacked_lstm, 4),
    "tiled": (tiled, 1),
}


def run_all(fluid):
    return {name: run(fluid, build, steps) for name, (build, steps) in CASES.items()}
