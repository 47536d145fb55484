"""Blocks: `--- id` starts a case of several statements; its result is `out`."""

CASES = """
--- while_array
i = L.fill_constant([1], 'int64', 0)
i.stop_gradient = True
n = L.fill_constant([1], 'int64', 3)
arr = L.array_write(x, i)
cond = L.less_than(i, n)
w = L.While(cond)
with w.block():
    prev = L.array_read(arr, i)
    nxt = L.fc(prev, 4)
    L.increment(i, in_place=True)
    L.array_write(nxt, i, array=arr)
    L.less_than(i, n, cond=cond)
out = [L.array_read(arr, i), L.array_length(arr)]
--- while_assign
i = L.zeros([1], 'int64')
s = L.fill_constant([1], 'float32', 0.0)
cond = L.less_than(i, l1)
w = L.While(cond=cond)
with w.block():
    L.assign(L.elementwise_add(s, s1), s)
    i = L.increment(i)
    L.less_than(i, l1, cond=cond)
out = s
--- while_loop
i = L.fill_constant([1], 'int64', 0)
ten = L.fill_constant([1], 'int64', 10)
def c(i, v):
    return L.less_than(i, ten)
def b(i, v):
    return [L.increment(i), L.scale(v, 2.0)]
out = L.while_loop(c, b, [i, x])
--- cond
out = L.cond(p1, lambda: L.scale(x, 2.0), lambda: L.scale(x, 3.0))
--- cond_grad
h = L.fc(x, 3)
out = L.mean(L.cond(p1, lambda: L.fc(h, 2), lambda: L.scale(L.slice(h, [1], [0], [2]), 3.0)))
fluid.optimizer.SGD(0.1).minimize(out)
--- case
out = L.case([(L.less_than(s1, L.fill_constant([1], 'float32', 1.)), lambda: L.fill_constant([1], 'float32', 1.)), (p1, lambda: L.fill_constant([1], 'float32', 2.))], lambda: L.fill_constant([1], 'float32', 3.))
--- switch_case
out = L.switch_case(n1, {0: lambda: L.fill_constant([1], 'float32', 1.), 1: lambda: L.fill_constant([1], 'float32', 2.)})
--- switch
lr = L.create_global_var([1], 0.0, 'float32', persistable=True, name='lr')
step = L.fill_constant([1], 'float32', 4.0)
b0 = L.fill_constant([1], 'float32', 3.0)
with L.Switch() as sw:
    with sw.case(L.less_than(step, b0)):
        L.assign(L.fill_constant([1], 'float32', 0.1), lr)
    with sw.case(L.less_than(step, s1)):
        L.assign(L.fill_constant([1], 'float32', 0.05), lr)
    with sw.default():
        L.assign(L.fill_constant([1], 'float32', 0.01), lr)
out = lr
--- ifelse
limit = L.fill_constant_batch_size_like(input=label, dtype='int64', shape=[1], value=5.0)
cond = L.less_than(x=label, y=limit)
ie = L.IfElse(cond)
with ie.true_block():
    t = ie.input(x)
    h = L.fc(input=t, size=10, act='tanh')
    ie.output(L.fc(input=h, size=3, act='softmax'))
with ie.false_block():
    t = ie.input(x)
    h = L.fc(input=t, size=20, act='tanh')
    ie.output(L.fc(input=h, size=3, act='softmax'))
out = ie()
--- static_rnn
rnn = L.StaticRNN()
with rnn.step():
    w = rnn.step_input(f3)
    prev = rnn.memory(shape=[-1, 5], batch_ref=w)
    h = L.fc([w, prev], 5, act='tanh')
    rnn.update_memory(prev, h)
    rnn.step_output(h)
out = rnn()
--- static_rnn_grad
rnn = L.StaticRNN()
e = L.fc(f3, 4, num_flatten_dims=2)
boot = L.fill_constant_batch_size_like(e, [-1, 5], 'float32', 0.0, input_dim_idx=1)
with rnn.step():
    w = rnn.step_input(e)
    prev = rnn.memory(init=boot)
    h = L.fc([w, prev], 5, act='tanh')
    rnn.update_memory(prev, h)
    rnn.output(h)
out = L.mean(rnn())
fluid.optimizer.SGD(0.1).minimize(out)
--- dynamic_rnn
rnn = L.DynamicRNN()
with rnn.block():
    w = rnn.step_input(seq)
    prev = rnn.memory(shape=[5])
    h = L.fc([w, prev], 5, act='tanh')
    rnn.update_memory(prev, h)
    rnn.output(h)
out = rnn()
--- dynamic_rnn_static
rnn = L.DynamicRNN()
with rnn.block():
    w = rnn.step_input(seq)
    e = rnn.static_input(seqb)
    prev = rnn.memory(init=x, need_reorder=True)
    a = L.sequence_pool(L.elementwise_mul(e, L.sequence_expand(prev, e)), 'sum')
    h = L.fc([w, a, prev], 4, act='tanh')
    rnn.update_memory(prev, h)
    rnn.output(h)
out = L.mean(L.sequence_last_step(rnn()))
fluid.optimizer.SGD(0.1).minimize(out)
--- rank_table
t = L.control_flow.lod_rank_table(seq)
m = L.control_flow.max_sequence_len(t)
a = L.control_flow.lod_tensor_to_array(seq, t)
out = [L.control_flow.array_to_lod_tensor(a, t), m, L.reorder_lod_tensor_by_rank(x, t)]
--- arrays
a = L.create_array('float32')
i = L.fill_constant([1], 'int64', 0)
L.array_write(x, i, array=a)
L.array_write(y, L.fill_constant([1], 'int64', 1), a)
o, ix = L.tensor_array_to_tensor(a, axis=1)
out = [o, ix, L.array_length(a), L.array_read(a, i)]
--- beam_decode
a = L.create_array('int64')
b = L.create_array('float32')
i = L.fill_constant([1], 'int64', 0)
L.array_write(pre, i, a)
L.array_write(pres, i, b)
out = L.beam_search_decode(a, b, 2, 1)
--- lstm_cell
cell = L.LSTMCell(4)
out = L.rnn(cell, t3)
--- gru_cell
cell = L.GRUCell(4)
out = L.rnn(cell, t3, sequence_length=len0, is_reverse=True)
--- basic_decoder
cell = L.GRUCell(4)
helper = L.TrainingHelper(f3, L.fill_constant([2], 'int32', 3))
outs, state = L.dynamic_decode(L.BasicDecoder(cell, helper), inits=cell.get_initial_states(f3))
out = [outs.cell_outputs, outs.sample_ids, state]
--- beam_decoder
cell = L.GRUCell(4)
emb = lambda t: fluid.embedding(t, [10, 4], param_attr='emb')
dec = L.BeamSearchDecoder(cell, start_token=0, end_token=1, beam_size=2, embedding_fn=emb, output_fn=lambda t: L.fc(t, 10, num_flatten_dims=len(t.shape) - 1))
out, _ = L.dynamic_decode(dec, inits=cell.get_initial_states(x), max_step_num=5)
--- contrib_basic_lstm
out = fluid.contrib.layers.basic_lstm(f3, None, None, 4, num_layers=2, bidirectional=True)
--- contrib_basic_gru
out = fluid.contrib.layers.basic_gru(f3, None, 4)
--- multivariate_normal
d = L.MultivariateNormalDiag(L.fill_constant([2], 'float32', 0.), L.fill_constant([2, 2], 'float32', 1.))
out = d.entropy()
--- py_reader_by_data
r = L.create_py_reader_by_data(4, [x, label])
out = L.read_file(r)
--- data_loader
r = fluid.io.DataLoader.from_generator(feed_list=[x, label], capacity=2)
out = L.fc(x, 2)
--- data_loader_queue
r = fluid.io.DataLoader.from_generator(feed_list=[x, label], capacity=2, iterable=False)
out = L.fc(x, 2)
--- py_reader
r = L.py_reader(4, [[-1, 4], [-1, 1]], ['float32', 'int64'])
out = L.read_file(r)
--- name_scope
with fluid.name_scope('enc'):
    with fluid.name_scope('in'):
        h = L.fc(x, 3)
    with fluid.name_scope('in'):
        out = L.fc(h, 3)
--- device_guard
with fluid.device_guard('cpu'):
    out = L.fc(x, 3)
"""
