"""fluid.layers: recurrent networks and decoding

Layers over sequences of different lengths (dynamic_*), over padded batches (lstm, rnn), and the search for the best output.
"""
# ruff: noqa
#: setup
half, zero, one = (fluid.initializer.Constant(v) for v in (0.5, 0.0, 1.0))
#: layers.dynamic_lstm
x = data(np.ones((3, 4)), lengths=[[2, 1]])  # input to the four gates of one cell
hidden, cell = layers.dynamic_lstm(x, size=4, use_peepholes=False, param_attr=half, bias_attr=zero)
show(hidden, cell)
#: layers.dynamic_lstmp
x = data(np.ones((2, 8)), lengths=[[2]])
projection, cell = layers.dynamic_lstmp(x, size=8, proj_size=1, use_peepholes=False, param_attr=half, bias_attr=zero)
show(projection, cell)
#: layers.dynamic_gru
x = data(np.ones((3, 3)), lengths=[[2, 1]])  # input to update and reset gate and candidate
show(layers.dynamic_gru(x, size=1, param_attr=half, bias_attr=zero))
#: layers.gru_unit
x, h = data(np.ones((1, 3))), data([[0.0]])
hidden, reset, gate = layers.gru_unit(x, h, size=3, param_attr=half, bias_attr=zero)
show(hidden, reset, gate)
#: layers.lstm
x = data(np.ones((2, 1, 2)))  # [steps, batch, width]
h = layers.fill_constant([1, 1, 3], "float32", 0.0)
c = layers.fill_constant([1, 1, 3], "float32", 0.0)
out, last_h, last_c = layers.lstm(x, h, c, max_len=2, hidden_size=3, num_layers=1, default_initializer=zero)
print(out.shape, last_h.shape, last_c.shape)
#: layers.GRUCell
cell = layers.GRUCell(hidden_size=2, param_attr=fluid.ParamAttr(initializer=half), bias_attr=fluid.ParamAttr(initializer=zero))
out, state = cell(data(np.ones((1, 3))), data(np.zeros((1, 2))))
show(out)
#: layers.LSTMCell, layers.rnn
cell = layers.LSTMCell(hidden_size=1, param_attr=fluid.ParamAttr(initializer=half), bias_attr=fluid.ParamAttr(initializer=zero))
x = data(np.ones((1, 3, 2)))  # [batch, steps, width]
outputs, (hidden, cell_state) = layers.rnn(cell, x)
show(outputs, hidden)
#: layers.BeamSearchDecoder, layers.dynamic_decode
cell = layers.GRUCell(hidden_size=2, param_attr=fluid.ParamAttr(initializer=half), bias_attr=fluid.ParamAttr(initializer=zero))
table = fluid.ParamAttr(name="words", initializer=fluid.initializer.Constant(0.1))
scores = fluid.initializer.NumpyArrayInitializer(np.array([[0, 0, 0, 2.0, 0], [0, 0, 0, 1.0, 0]], "float32"))
decoder = layers.BeamSearchDecoder(
    cell,
    start_token=0,
    end_token=1,
    beam_size=2,
    embedding_fn=lambda ids: fluid.embedding(ids, size=[5, 3], param_attr=table),
    output_fn=lambda h: layers.fc(h, 5, num_flatten_dims=len(h.shape) - 1, param_attr=fluid.ParamAttr(name="out", initializer=scores), bias_attr=False),
)
outputs, states = layers.dynamic_decode(decoder, inits=cell.get_initial_states(data(np.zeros((1, 3)))), max_step_num=2)
show(layers.slice(outputs, axes=[2], starts=[0], ends=[1]))  # the best beam: [batch, steps, 1]
#: layers.beam_search
# two beams of one sentence, and two candidates for each
pre_ids, pre_scores = data([[2], [3]], lengths=[[1], [2]]), data([[-0.5], [-0.7]], lengths=[[1], [2]])
ids = data([[4, 5], [1, 4]], lengths=[[1], [2]])
scores = data([[-0.9, -1.5], [-0.8, -2.0]], lengths=[[1], [2]])
best, best_scores, parent = layers.beam_search(
    pre_ids, pre_scores, ids, scores, beam_size=2, end_id=1, return_parent_idx=True
)
show(best, best_scores, parent)
#: layers.beam_search_decode
start, start_score = data([[0]], lengths=[[1], [1]]), data([[0.0]], lengths=[[1], [1]])
candidates = data([[2, 3]], lengths=[[1], [1]]), data([[-0.5, -0.7]], lengths=[[1], [1]])
first, first_scores = layers.beam_search(start, start_score, *candidates, beam_size=2, end_id=1)
candidates = data([[4, 5], [1, 4]], lengths=[[1], [2]]), data([[-0.9, -1.5], [-0.8, -2.0]], lengths=[[1], [2]])
second, second_scores = layers.beam_search(first, first_scores, *candidates, beam_size=2, end_id=1)
ids, scores = layers.create_array("int64"), layers.create_array("float32")
for step, pair in enumerate([(first, first_scores), (second, second_scores)]):
    i = layers.fill_constant([1], "int64", step)
    layers.array_write(pair[0], i, ids)
    layers.array_write(pair[1], i, scores)
sentences, sentence_scores = layers.beam_search_decode(ids, scores, beam_size=2, end_id=1)
show(sentences)  # sentences, their hypotheses, and the words of each
