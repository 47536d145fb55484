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

word_dict_len, label_dict_len, pred_dict_len, mark_dict_len = 30, 9, 12, 2
mark_dim, word_dim, hidden_dim, depth, mix_hidden_lr, embedding_name = 3, 5, 16, 4, 1e-1, 'emb'

def db_lstm(word, predicate, ctx_n2, ctx_n1, ctx_0, ctx_p1, ctx_p2, mark, **ignored):
    predicate_embedding = fluid.layers.embedding(input=predicate, size=[pred_dict_len, word_dim], dtype='float32', is_sparse=True, param_attr='vemb')
    mark_embedding = fluid.layers.embedding(input=mark, size=[mark_dict_len, mark_dim], dtype='float32', is_sparse=True)
    word_input = [word, ctx_n2, ctx_n1, ctx_0, ctx_p1, ctx_p2]
    emb_layers = [fluid.layers.embedding(size=[word_dict_len, word_dim], input=x, param_attr=fluid.ParamAttr(name=embedding_name, trainable=False)) for x in word_input]
    emb_layers.append(predicate_embedding)
    emb_layers.append(mark_embedding)
    hidden_0_layers = [fluid.layers.fc(input=emb, size=hidden_dim, act='tanh') for emb in emb_layers]
    hidden_0 = fluid.layers.sums(input=hidden_0_layers)
    lstm_0 = fluid.layers.dynamic_lstm(input=hidden_0, size=hidden_dim, candidate_activation='relu', gate_activation='sigmoid', cell_activation='sigmoid')
    input_tmp = [hidden_0, lstm_0[0]]
    for i in range(1, depth):
        mix_hidden = fluid.layers.sums(input=[fluid.layers.fc(input=input_tmp[0], size=hidden_dim, act='tanh'), fluid.layers.fc(input=input_tmp[1], size=hidden_dim, act='tanh')])
        lstm = fluid.layers.dynamic_lstm(input=mix_hidden, size=hidden_dim, candidate_activation='relu', gate_activation='sigmoid', cell_activation='sigmoid', is_reverse=((i % 2) == 1))
        input_tmp = [mix_hidden, lstm[0]]
    return fluid.layers.sums(input=[fluid.layers.fc(input=input_tmp[0], size=label_dict_len, act='tanh'), fluid.layers.fc(input=input_tmp[1], size=label_dict_len, act='tanh')])

def conll():
    rng = np.random.RandomState(2)
    for _ in range(12):
        n = rng.randint(2, 7)
        f = lambda k: [int(i) for i in rng.randint(0, k, n)]
        yield f(30), f(30), f(30), f(30), f(30), f(30), [int(rng.randint(12))] * n, f(2), f(label_dict_len)

def main():
    names = ['word_data', 'ctx_n2_data', 'ctx_n1_data', 'ctx_0_data', 'ctx_p1_data', 'ctx_p2_data', 'verb_data', 'mark_data', 'target']
    vs = [fluid.layers.data(name=n, shape=[1], dtype='int64', lod_level=1) for n in names]
    word, ctx_n2, ctx_n1, ctx_0, ctx_p1, ctx_p2, predicate, mark, target = vs
    feature_out = db_lstm(**locals())
    crf_cost = fluid.layers.linear_chain_crf(input=feature_out, label=target, param_attr=fluid.ParamAttr(name='crfw', learning_rate=mix_hidden_lr))
    avg_cost = fluid.layers.mean(crf_cost)
    sgd_optimizer = fluid.optimizer.SGD(learning_rate=fluid.layers.exponential_decay(learning_rate=0.01, decay_steps=2, decay_rate=0.5, staircase=True))
    sgd_optimizer.minimize(avg_cost)
    crf_decode = fluid.layers.crf_decoding(input=feature_out, param_attr=fluid.ParamAttr(name='crfw'))
    (precision, recall, f1_score, num_infer, num_label, num_correct) = fluid.layers.chunk_eval(input=crf_decode, label=target, chunk_scheme="IOB", num_chunk_types=int((label_dict_len - 1) / 2))
    ev = fluid.metrics.ChunkEvaluator()
    place = fluid.CPUPlace()
    feeder = fluid.DataFeeder(feed_list=vs, place=place)
    exe = fluid.Executor(place)
    exe.run(fluid.default_startup_program())
    set_params(fluid.default_main_program())
    embedding_param = fluid.global_scope().find_var(embedding_name).get_tensor()
    embedding_param.set(np.random.RandomState(8).randn(word_dict_len, word_dim).astype('float32'), place)
    old_fluid = fluid.evaluator.ChunkEvaluator(input=crf_decode, label=target, chunk_scheme="IOB", num_chunk_types=4) if '--evaluator' in sys.argv else None
    for pass_id in range(2):
        ev.reset()
        for i, data in enumerate(paddle.batch(conll, 4)()):
            r = exe.run(fluid.default_main_program(), feed=feeder.feed(data), fetch_list=[avg_cost, crf_decode, num_infer, num_label, num_correct, precision, recall, f1_score], return_numpy=False)
            cost, dec, ni, nl, nc = r[:5]
            ev.update(np.array(ni), np.array(nl), np.array(nc))
            print("avg_cost: " + str(np.array(cost)[0]), np.array(dec).ravel(), dec.lod(), np.array(ni), np.array(nl), np.array(nc), [np.array(t) for t in r[5:]])
        print(ev.eval())
    d = tempfile.mkdtemp()
    fluid.io.save_inference_model(d, names[:-1], [feature_out], exe)
    with fluid.scope_guard(fluid.Scope()):
        prog, fn, ft = fluid.io.load_inference_model(d, exe)
        lod = [[3, 4, 2]]
        rng = np.random.RandomState(1)
        feed = dict((n, fluid.create_lod_tensor(rng.randint(0, 2, (9, 1)).astype('int64'), lod, place)) for n in fn)
        res = exe.run(prog, feed=feed, fetch_list=ft, return_numpy=False)
        print(res[0].lod(), np.array(res[0]).shape, np.array(res[0])[0])
    print(np.array(fluid.global_scope().find_var('crfw').get_tensor()).sum())
if __name__ == '__main__':
    main()
