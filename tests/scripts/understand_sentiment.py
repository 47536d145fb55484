from __future__ import print_function
import os, sys, tempfile
import numpy as np
import paddle
import paddle.fluid as fluid

def set_params(prog, seed=0, scale=1.0):
    rng = np.random.RandomState(seed)
    for p in prog.global_block().all_parameters():
        v = ((rng.rand(*p.shape) - 0.5) * scale).astype("float32")
        fluid.global_scope().find_var(p.name).get_tensor().set(v, fluid.CPUPlace())

def reader():
    rng = np.random.RandomState(3)
    for _ in range(24):
        n = rng.randint(1, 9)
        w = rng.randint(0, 40, n)
        yield [int(i) for i in w], int(w.sum() % 2)

def conv_net(data):
    emb = fluid.embedding(input=data, size=[40, 6], is_sparse=True) if False else fluid.layers.embedding(input=data, size=[40, 6], is_sparse=True)
    conv_3 = fluid.nets.sequence_conv_pool(input=emb, num_filters=5, filter_size=3, act="tanh", pool_type="sqrt")
    conv_4 = fluid.nets.sequence_conv_pool(input=emb, num_filters=5, filter_size=4, act="tanh", pool_type="sqrt")
    return fluid.layers.fc(input=[conv_3, conv_4], size=2, act="softmax")

def dynamic_rnn_lstm(data):
    lstm_size = 5
    emb = fluid.layers.embedding(input=data, size=[40, 6], is_sparse=True)
    sentence = fluid.layers.fc(input=emb, size=lstm_size, act='tanh')
    rnn = fluid.layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(sentence)
        prev_hidden = rnn.memory(value=0.0, shape=[lstm_size])
        prev_cell = rnn.memory(value=0.0, shape=[lstm_size])
        def gate_common(ipt, hidden, size):
            gate0 = fluid.layers.fc(input=ipt, size=size, bias_attr=True)
            gate1 = fluid.layers.fc(input=hidden, size=size, bias_attr=False)
            return gate0 + gate1
        forget_gate = fluid.layers.sigmoid(x=gate_common(word, prev_hidden, lstm_size))
        input_gate = fluid.layers.sigmoid(x=gate_common(word, prev_hidden, lstm_size))
        output_gate = fluid.layers.sigmoid(x=gate_common(word, prev_hidden, lstm_size))
        cell_gate = fluid.layers.sigmoid(x=gate_common(word, prev_hidden, lstm_size))
        cell = forget_gate * prev_cell + input_gate * cell_gate
        hidden = output_gate * fluid.layers.tanh(x=cell)
        rnn.update_memory(prev_cell, cell)
        rnn.update_memory(prev_hidden, hidden)
        rnn.output(hidden)
    last = fluid.layers.sequence_last_step(rnn())
    return fluid.layers.fc(input=last, size=2, act="softmax")

def stacked_lstm_net(data, stacked_num=3):
    assert stacked_num % 2 == 1
    emb = fluid.layers.embedding(input=data, size=[40, 6], is_sparse=False)
    fc1 = fluid.layers.fc(input=emb, size=8)
    lstm1, cell1 = fluid.layers.dynamic_lstm(input=fc1, size=8)
    inputs = [fc1, lstm1]
    for i in range(2, stacked_num + 1):
        fc = fluid.layers.fc(input=inputs, size=8)
        lstm, cell = fluid.layers.dynamic_lstm(input=fc, size=8, is_reverse=(i % 2) == 0)
        inputs = [fc, lstm]
    fc_last = fluid.layers.sequence_pool(input=inputs[0], pool_type='max')
    lstm_last = fluid.layers.sequence_pool(input=inputs[1], pool_type='max')
    return fluid.layers.fc(input=[fc_last, lstm_last], size=2, act='softmax')

def gru_attention(data):
    emb = fluid.layers.embedding(input=data, size=[40, 6])
    g = fluid.layers.dynamic_gru(fluid.layers.fc(emb, 12), size=4, candidate_activation='relu')
    w = fluid.layers.fc(g, 1, bias_attr=False)
    w = fluid.layers.sequence_softmax(w)
    c = fluid.layers.sequence_pool(fluid.layers.elementwise_mul(g, fluid.layers.reshape(w, [-1]), axis=0), 'sum')
    return fluid.layers.fc(c, 2, act='softmax')

def main(net):
    prog, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(prog, startup), fluid.unique_name.guard(), fluid.scope_guard(fluid.Scope()):
        data = fluid.layers.data(name="words", shape=[1], dtype="int64", lod_level=1)
        label = fluid.layers.data(name="label", shape=[1], dtype="int64")
        prediction = net(data)
        cost = fluid.layers.cross_entropy(input=prediction, label=label)
        avg_cost = fluid.layers.mean(x=cost)
        acc = fluid.layers.accuracy(input=prediction, label=label)
        clone = prog.clone(for_test=True)
        fluid.optimizer.Adagrad(learning_rate=0.05).minimize(avg_cost)
        exe = fluid.Executor(fluid.CPUPlace())
        feeder = fluid.DataFeeder(feed_list=[data, label], place=fluid.CPUPlace())
        exe.run(startup); set_params(prog)
        for epoch in range(2):
            for i, d in enumerate(paddle.batch(paddle.reader.buffered(reader, 100), 6)()):
                c, a = exe.run(prog, feed=feeder.feed(d), fetch_list=[avg_cost, acc])
                print(net.__name__, epoch, i, "%.5f" % c[0], a)
        loc = tempfile.mkdtemp()
        fluid.io.save_inference_model(loc, ["words"], [prediction], exe)
        p2, names, targets = fluid.io.load_inference_model(loc, exe)
        reviews = [[1, 2, 3], [4, 5], [6, 39, 0, 7]]
        base_shape = [[len(c) for c in reviews]]
        tensor_words = fluid.create_lod_tensor(np.concatenate(reviews).reshape(-1, 1).astype('int64'), base_shape, fluid.CPUPlace())
        results = exe.run(p2, feed={names[0]: tensor_words}, fetch_list=targets, return_numpy=False)
        for i, r in enumerate(np.array(results[0])):
            print("Predict probability of ", r[0], " to be positive and ", r[1], " to be negative for review '", reviews[i], "'")
        tw2 = fluid.create_lod_tensor(reviews, base_shape, fluid.CPUPlace())
        print(np.array(tw2).shape, np.array(tw2).dtype, tw2.lod())
        r2 = exe.run(clone, feed={'words': tw2, 'label': np.zeros((3, 1), 'int64')}, fetch_list=[prediction.name, avg_cost.name])
        print(r2[0].sum(1), r2[1])

if __name__ == '__main__':
    for n in (conv_net, dynamic_rnn_lstm, stacked_lstm_net, gru_attention):
        main(n)
