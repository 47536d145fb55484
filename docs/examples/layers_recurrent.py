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
#: layers.lstm_unit
x, h, c = data(np.ones((1, 2))), data(np.zeros((1, 1))), data([[1.0]])
hidden, cell = layers.lstm_unit(x, h, c, forget_bias=1.0, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=zero))
show(hidden, cell)  # the cell keeps sigmoid(1) of what it held
#: layers.RNNCell
class Sum(layers.RNNCell):
    """Adds up what it is given; its state is the sum."""

    def call(self, inputs, states):
        total = inputs + states
        return total, total

    @property
    def state_shape(self):
        return [2]


x = data([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])  # [batch, steps, width]
outputs, last = layers.rnn(Sum(), x)  # starts from get_initial_states: zeros of state_shape
show(outputs, last)
#: layers.BasicDecoder, layers.TrainingHelper, layers.BasicDecoder.OutputWrapper
# teacher forcing: the targets are the inputs of the steps
cell = layers.GRUCell(hidden_size=2, param_attr=fluid.ParamAttr(initializer=half), bias_attr=fluid.ParamAttr(initializer=zero))
targets, lengths = data(np.ones((2, 3, 2))), data([3, 1])
decoder = layers.BasicDecoder(cell, layers.TrainingHelper(targets, lengths))
outputs, states, steps = layers.dynamic_decode(
    decoder, inits=cell.get_initial_states(targets), impute_finished=True, return_length=True
)
print(type(outputs) is layers.BasicDecoder.OutputWrapper, outputs._fields)
show(outputs.cell_outputs, states, steps)  # the second sequence keeps the state of its only step
#: layers.GreedyEmbeddingHelper
# the word of the highest score is the next input, until all have come to end_token
cell = layers.GRUCell(hidden_size=1, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=zero))
follows = fluid.initializer.NumpyArrayInitializer(np.array([[0], [1], [2], [3]], "float32"))
table = fluid.ParamAttr(name="words", initializer=follows)
next_word = fluid.initializer.NumpyArrayInitializer(np.array([0, 1, 3, 2], "float32"))  # scores of the four words
start = data([0, 1])
helper = layers.GreedyEmbeddingHelper(lambda ids: fluid.embedding(ids, [4, 1], param_attr=table), start, end_token=2)
decoder = layers.BasicDecoder(
    cell, helper, output_fn=lambda h: layers.fc(h, 4, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=next_word))
)
outputs, states = layers.dynamic_decode(decoder, inits=cell.get_initial_states(start, shape=[1]), max_step_num=3)
show(outputs.sample_ids)  # [batch, steps]
#: layers.SampleEmbeddingHelper
# as above, but a word is drawn by its probability; a low temperature makes the highest score nearly certain
cell = layers.GRUCell(hidden_size=1, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=zero))
table = fluid.ParamAttr(name="words", initializer=one)
scores = fluid.initializer.NumpyArrayInitializer(np.array([0, 1, 3, 2], "float32"))
start = data([0, 1])
helper = layers.SampleEmbeddingHelper(
    lambda ids: fluid.embedding(ids, [4, 1], param_attr=table), start, end_token=1, softmax_temperature=0.01, seed=7
)
decoder = layers.BasicDecoder(
    cell, helper, output_fn=lambda h: layers.fc(h, 4, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=scores))
)
outputs, states = layers.dynamic_decode(decoder, inits=cell.get_initial_states(start, shape=[1]), max_step_num=2)
show(outputs.sample_ids)
#: layers.DecodeHelper
class Countdown(layers.DecodeHelper):
    """Feeds 3, 2, 1 and ends."""

    def initialize(self):
        self.start = layers.fill_constant([1, 1], "float32", 3.0)
        return self.start, layers.fill_constant([1], "bool", 0)

    def sample(self, time, outputs, states):
        return layers.cast(layers.reduce_sum(outputs, dim=-1), "int64")

    def next_inputs(self, time, outputs, states, sample_ids):
        following = self.start - layers.cast(time, "float32") - 1.0
        return layers.reduce_all(following < 1.0, dim=1), following, states


class Echo(layers.RNNCell):
    def call(self, inputs, states):
        return inputs, states + inputs


outputs, total = layers.dynamic_decode(layers.BasicDecoder(Echo(), Countdown()), inits=layers.fill_constant([1, 1], "float32", 0.0))
show(outputs.cell_outputs, total)
#: layers.Decoder
class Doubling(layers.Decoder):
    """Doubles its input until that is beyond 10."""

    def initialize(self, inits):
        return inits, inits, layers.fill_constant([1], "bool", 0)

    def step(self, time, inputs, states, **kwargs):
        doubled = inputs * 2.0
        return doubled, doubled, doubled, layers.reduce_all(doubled > 10.0, dim=1)


outputs, last = layers.dynamic_decode(Doubling(), inits=layers.fill_constant([1, 1], "float32", 1.5))
show(outputs)
#: layers.BeamSearchDecoder.OutputWrapper, layers.BeamSearchDecoder.StateWrapper
print(layers.BeamSearchDecoder.OutputWrapper._fields)  # of one step of dynamic_decode
print(layers.BeamSearchDecoder.StateWrapper._fields)  # from step to step
