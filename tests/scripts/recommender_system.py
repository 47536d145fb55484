from __future__ import print_function
import math, sys, argparse, os, tempfile
import numpy as np
import paddle, paddle.fluid as fluid
import paddle.fluid.layers as layers
import paddle.fluid.nets as nets
IS_SPARSE, BATCH = True, 7

def get_usr_combined_features():
    uid = layers.data(name='user_id', shape=[1], dtype='int64')
    usr_emb = layers.embedding(input=uid, dtype='float32', size=[31, 8], param_attr='user_table', is_sparse=IS_SPARSE)
    usr_fc = layers.fc(input=usr_emb, size=8)
    feats = [usr_fc]
    for name, n, k in [('gender_id', 2, 4), ('age_id', 7, 4), ('job_id', 21, 4)]:
        v = layers.data(name=name, shape=[1], dtype='int64')
        emb = layers.embedding(input=v, size=[n, k], param_attr=name.replace('_id', '_table'), is_sparse=IS_SPARSE)
        feats.append(layers.fc(input=emb, size=k))
    concat_embed = layers.concat(input=feats, axis=1)
    return layers.fc(input=concat_embed, size=20, act="tanh")

def get_mov_combined_features():
    mov_id = layers.data(name='movie_id', shape=[1], dtype='int64')
    mov_emb = layers.embedding(input=mov_id, dtype='float32', size=[41, 8], param_attr='movie_table', is_sparse=IS_SPARSE)
    mov_fc = layers.fc(input=mov_emb, size=8)
    category_id = layers.data(name='category_id', shape=[1], dtype='int64', lod_level=1)
    mov_categories_emb = layers.embedding(input=category_id, size=[18, 8], is_sparse=IS_SPARSE)
    mov_categories_hidden = layers.sequence_pool(input=mov_categories_emb, pool_type="sum")
    mov_title_id = layers.data(name='movie_title', shape=[1], dtype='int64', lod_level=1)
    mov_title_emb = layers.embedding(input=mov_title_id, size=[50, 8], is_sparse=IS_SPARSE)
    mov_title_conv = nets.sequence_conv_pool(input=mov_title_emb, num_filters=8, filter_size=3, act="tanh", pool_type="sum")
    concat_embed = layers.concat(input=[mov_fc, mov_categories_hidden, mov_title_conv], axis=1)
    return layers.fc(input=concat_embed, size=20, act="tanh")

def inference_program():
    usr = get_usr_combined_features()
    mov = get_mov_combined_features()
    inference = layers.cos_sim(X=usr, Y=mov)
    return layers.scale(x=inference, scale=5.0)

def reader():
    rng = np.random.RandomState(4)
    for _ in range(30):
        yield [int(rng.randint(31)), int(rng.randint(2)), int(rng.randint(7)), int(rng.randint(21)), int(rng.randint(41)),
               [int(i) for i in rng.randint(0, 18, rng.randint(1, 4))], [int(i) for i in rng.randint(0, 50, rng.randint(1, 8))], [float(rng.randint(1, 6))]]

def set_params(prog, seed=0):
    rng = np.random.RandomState(seed)
    for p in prog.global_block().all_parameters():
        fluid.global_scope().find_var(p.name).get_tensor().set((rng.rand(*p.shape) - 0.5).astype('float32'), fluid.CPUPlace())

def main():
    scale_infer = inference_program()
    label = layers.data(name='score', shape=[1], dtype='float32')
    square_cost = layers.square_error_cost(input=scale_infer, label=label)
    avg_cost = layers.mean(square_cost)
    test_program = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.SGD(learning_rate=0.2).minimize(avg_cost)
    exe = fluid.Executor(fluid.CPUPlace())
    feed_order = ['user_id', 'gender_id', 'age_id', 'job_id', 'movie_id', 'category_id', 'movie_title', 'score']
    feeder = fluid.DataFeeder(feed_order, fluid.CPUPlace(), program=fluid.default_main_program())
    exe.run(fluid.default_startup_program())
    set_params(fluid.default_main_program())
    for ep in range(2):
        for bid, data in enumerate(paddle.batch(reader, BATCH)()):
            out = exe.run(feed=feeder.feed(data), fetch_list=[avg_cost])
            print(ep, bid, float(out[0][0]))
        a = [exe.run(test_program, feed=feeder.feed(d), fetch_list=[avg_cost, scale_infer]) for d in paddle.batch(reader, BATCH)()]
        print('test', np.mean([float(x[0][0]) for x in a]), a[0][1].ravel())
    d = tempfile.mkdtemp()
    fluid.io.save_inference_model(d, feed_order[:-1], [scale_infer], exe)
    with fluid.scope_guard(fluid.core.Scope()):
        prog, names, targets = fluid.io.load_inference_model(d, exe)
        place = fluid.CPUPlace()
        feed = {}
        for n, v in zip(names, [[[1]], [[1]], [[0]], [[10]], [[39]]]):
            feed[n] = np.array(v, dtype='int64')
        feed['category_id'] = fluid.create_lod_tensor(np.array([[10], [8], [9]], dtype='int64'), [[3]], place)
        feed['movie_title'] = fluid.create_lod_tensor([[[1], [4], [2], [5], [7], [9]]], [[6]], place) if False else fluid.create_lod_tensor(np.array([[1], [4], [2], [5], [7], [9]], dtype='int64'), [[6]], place)
        r = exe.run(prog, feed=feed, fetch_list=targets, return_numpy=False)
        print("infer: ", np.array(r[0]), r[0].lod())
        print([op.type for op in prog.global_block().ops])
if __name__ == '__main__':
    main()
