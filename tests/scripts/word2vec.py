from __future__ import print_function
import paddle as paddle
import paddle.fluid as fluid
import numpy, sys, math, tempfile, os
EMBED_SIZE, HIDDEN_SIZE, N, BATCH_SIZE = 8, 12, 5, 10
words = 'the quick brown fox jumps over a lazy dog and runs away <unk>'.split()
word_dict = dict(zip(words, range(len(words))))
dict_size = len(word_dict)

def build_reader(n, seed):
    def reader():
        rng = numpy.random.RandomState(seed)
        for _ in range(n):
            s = rng.randint(0, dict_size)
            yield tuple((s + i * 2) % dict_size for i in range(N))
    return reader

def inference_program(words, is_sparse):
    embs = [fluid.embedding(input=w, size=[dict_size, EMBED_SIZE], dtype='float32', is_sparse=is_sparse, param_attr='shared_w') if False else
            fluid.layers.embedding(input=w, size=[dict_size, EMBED_SIZE], dtype='float32', is_sparse=is_sparse, param_attr='shared_w') for w in words]
    concat_embed = fluid.layers.concat(input=embs, axis=1)
    hidden1 = fluid.layers.fc(input=concat_embed, size=HIDDEN_SIZE, act='sigmoid')
    return fluid.layers.fc(input=hidden1, size=dict_size, act='softmax')

def set_params(prog, seed=0):
    rng = numpy.random.RandomState(seed)
    for p in prog.global_block().all_parameters():
        fluid.global_scope().find_var(p.name).get_tensor().set((rng.rand(*p.shape) - 0.5).astype('float32'), fluid.CPUPlace())

def main(is_sparse, save_dir):
    names = ['firstw', 'secondw', 'thirdw', 'forthw']
    w = [fluid.layers.data(name=n, shape=[1], dtype='int64', lod_level=1 if False else 0) for n in names]
    next_word = fluid.layers.data(name='nextw', shape=[1], dtype='int64')
    predict_word = inference_program(w, is_sparse)
    cost = fluid.layers.cross_entropy(input=predict_word, label=next_word)
    avg_cost = fluid.layers.mean(cost)
    opt = fluid.optimizer.AdagradOptimizer(learning_rate=3e-1, regularization=fluid.regularizer.L2DecayRegularizer(8e-4)) if not is_sparse else fluid.optimizer.SGD(0.5)
    opt.minimize(avg_cost)
    place = fluid.CPUPlace()
    exe = fluid.Executor(place)
    feed_order = names + ['nextw']
    main_program = fluid.default_main_program()
    feed_var_list_loop = [main_program.global_block().var(n) for n in feed_order]
    feeder = fluid.DataFeeder(feed_list=feed_var_list_loop, place=place)
    exe.run(fluid.default_startup_program())
    set_params(main_program)
    train_reader = paddle.batch(build_reader(55, 1), BATCH_SIZE)
    step = 0
    for pass_id in range(4):
        for data in train_reader():
            avg_cost_np = exe.run(main_program, feed=feeder.feed(data), fetch_list=[avg_cost])
            if step % 4 == 0:
                print("Step %d: Average Cost %f" % (step, avg_cost_np[0]))
            step += 1
    fluid.io.save_inference_model(save_dir, names, [predict_word], exe)

def infer(use_cuda, params_dirname):
    place = fluid.CUDAPlace(0) if use_cuda else fluid.CPUPlace()
    exe = fluid.Executor(place)
    inference_scope = fluid.core.Scope()
    with fluid.scope_guard(inference_scope):
        [inferencer, feed_target_names, fetch_targets] = fluid.io.load_inference_model(params_dirname, exe)
        data1 = [[numpy.int64(2)]]; data2 = [[4]]; data3 = [[6]]; data4 = [[8]]
        lod = [[1]]
        mk = [fluid.create_lod_tensor(d, lod, place) for d in (data1, data2, data3, data4)]
        for a, b in zip(feed_target_names, ['firstw', 'secondw', 'thirdw', 'forthw']):
            assert a == b
        results = exe.run(inferencer, feed=dict(zip(feed_target_names, mk)), fetch_list=fetch_targets, return_numpy=False)
        print(numpy.array(results[0]))
        print(results[0].lod(), results[0].recursive_sequence_lengths(), results[0].shape())
        idx = numpy.argmax(results[0])
        print(list(word_dict.keys())[list(word_dict.values()).index(idx)])
        t = fluid.create_random_int_lodtensor([[2, 3]], [1], place, low=0, high=dict_size - 1)
        a = numpy.array(t)
        print(a.shape, a.dtype, t.lod(), bool((a >= 0).all() and (a < dict_size).all()), t.has_valid_recursive_sequence_lengths())
        t2 = fluid.create_lod_tensor(numpy.arange(10).reshape(10, 1).astype('int64'), [[2, 1], [3, 3, 4]], place)
        print(t2.lod(), t2.recursive_sequence_lengths())
        t3 = fluid.create_lod_tensor(t2, [[4, 6]], place)
        print(t3.lod())
        t4 = fluid.LoDTensor(); t4.set(numpy.ones((3, 2), 'float32'), place); t4.set_lod([[0, 1, 3]])
        print(t4.lod(), t4.shape(), t4.recursive_sequence_lengths(), str(t4._dtype()))
        t4.set_recursive_sequence_lengths([[2, 1]]); print(t4.lod())

if __name__ == '__main__':
    for s in (False, True):
        d = tempfile.mkdtemp()
        with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
            main(s, d)
        infer(False, d)
