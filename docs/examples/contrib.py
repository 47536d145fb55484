"""fluid.contrib

Layers and tools apart from the core.
"""
# ruff: noqa
#: setup
half, zero, one = (fluid.initializer.Constant(v) for v in (0.5, 0.0, 1.0))
#: contrib.distributed_batch_reader
batches = fluid.contrib.reader.distributed_batch_reader(paddle.batch(lambda: iter(range(4)), 2))
print(list(batches()))  # all of them when there is one trainer
#: contrib.HDFSClient, contrib.multi_download, contrib.multi_upload
import os

os.makedirs("hadoop/bin")
with open("hadoop/bin/hadoop", "w") as out:  # in place of Hadoop's own command
    out.write("#!/bin/sh\nexit 0\n")
os.chmod("hadoop/bin/hadoop", 0o755)
client = fluid.contrib.HDFSClient("hadoop", {"fs.default.name": "hdfs://host:9000", "hadoop.job.ugi": "user,password"})
print(client.is_exist("/data"))
print(fluid.contrib.multi_download(client, "/data", "here", trainer_id=0, trainers=2))
fluid.contrib.multi_upload(client, "/data", "here")  # all files in the folder
#: contrib.BasicLSTMUnit
with fluid.dygraph.guard():
    unit = fluid.contrib.BasicLSTMUnit("unit", hidden_size=2, param_attr=half, bias_attr=zero)
    x, h, c = (fluid.dygraph.to_variable(np.full([1, 2], v, "float32")) for v in (1.0, 0.0, 0.0))
    for state in unit(x, h, c):
        print(state.numpy().round(4).tolist())
#: contrib.layers.basic_lstm
x = data(np.ones((1, 3, 2)))
out, last_h, last_c = fluid.contrib.layers.basic_lstm(x, None, None, hidden_size=4, num_layers=2, bidirectional=True)
print(out.shape, last_h.shape)
#: contrib.InitState, contrib.StateCell, contrib.TrainingDecoder
x = data([[1.0], [2.0], [3.0]], lengths=[[3]])
boot = data([[10.0]])
cell = fluid.contrib.StateCell(inputs={"x": None}, states={"total": fluid.contrib.InitState(init=boot)}, out_state="total")

@cell.state_updater
def update(cell):
    cell.set_state("total", layers.elementwise_add(cell.get_state("total"), cell.get_input("x")))

decoder = fluid.contrib.TrainingDecoder(cell)
with decoder.block():
    word = decoder.step_input(x)
    cell.compute_state(inputs={"x": word})
    decoder.output(cell.get_state("total"))
    cell.update_states()
show(decoder())
#: contrib.BeamSearchDecoder
start = data([[0]], lengths=[[1], [1]])
start_scores = data([[0.0]], lengths=[[1], [1]])
boot = data([[0.5]])
cell = fluid.contrib.StateCell(
    inputs={"x": None}, states={"h": fluid.contrib.InitState(init=boot, need_reorder=True)}, out_state="h"
)

@cell.state_updater
def update(cell):
    cell.set_state("h", layers.fc([cell.get_input("x"), cell.get_state("h")], 1, param_attr=half, bias_attr=False, act="tanh"))

decoder = fluid.contrib.BeamSearchDecoder(
    cell, start, start_scores, target_dict_dim=4, word_dim=2, max_len=3, beam_size=2, end_id=1, topk_size=4
)
decoder.decode()
ids, scores = decoder()
print(ids.lod_level, scores.lod_level)
#: contrib.layers.shuffle_batch
x = data([[1.0], [2.0], [3.0]])
show(layers.reduce_sum(fluid.contrib.layers.shuffle_batch(x)))  # the rows in another order
#: contrib.layers.tdm_child
# nodes of a tree: item, layer, parent, children
tree = np.array([[0, 0, 0, 1, 2], [0, 1, 0, 3, 4], [0, 1, 0, 5, 6], [1, 2, 1, 0, 0], [2, 2, 1, 0, 0], [3, 2, 2, 0, 0], [4, 2, 2, 0, 0]], dtype="int32")
attr = fluid.ParamAttr(initializer=fluid.initializer.NumpyArrayInitializer(tree))
child, is_leaf = fluid.contrib.layers.tdm_child(data([[1]]), node_nums=7, child_nums=2, param_attr=attr)
show(child, is_leaf)
#: contrib.layers.tdm_sampler
travel = fluid.ParamAttr(initializer=fluid.initializer.NumpyArrayInitializer(np.array([[1, 3], [1, 4], [2, 5], [2, 6]], "int32")))
layer = fluid.ParamAttr(initializer=fluid.initializer.NumpyArrayInitializer(np.array([[1], [2], [3], [4], [5], [6]], "int32")))
out, labels, mask = fluid.contrib.layers.tdm_sampler(
    data([[0]]), [0, 1], [2, 4], 4, tree_travel_attr=travel, tree_layer_attr=layer, output_list=False
)
show(layers.shape(out), labels, mask)  # a node of each layer on the way, and one that is not
#: contrib.mixed_precision.decorate
optimizer = fluid.contrib.mixed_precision.decorate(fluid.optimizer.SGD(0.1), init_loss_scaling=8.0, use_dynamic_loss_scaling=False)
optimizer.minimize(layers.mean(layers.fc(data([[1.0, 2.0]]), 1)))
print(any(op.type == "cast" for op in fluid.default_main_program().global_block().ops))
print(optimizer.get_loss_scaling().name in fluid.default_main_program().global_block().vars)
#: contrib.memory_usage
layers.fc(fluid.data("x", [None, 100]), 10)
low, high, unit = fluid.contrib.memory_usage(fluid.default_main_program(), batch_size=10)
print(0 < low < high, unit)
#: contrib.QuantizeTranspiler
y = layers.fc(data([[0.1, 0.2]]), 1, param_attr=one, bias_attr=False)
transpiler = fluid.contrib.QuantizeTranspiler(weight_bits=8, activation_bits=8)
transpiler.training_transpile(fluid.default_main_program(), fluid.default_startup_program())
print([op.type for op in fluid.default_main_program().global_block().ops])
show(y)  # 0.1 is 63.5 of 127 steps: it becomes 64
#: contrib.fused_elemwise_activation
x, y = data([[1.0, -5.0]]), data([[2.0, 3.0]])
show(fluid.contrib.layers.fused_elemwise_activation(x, y, functor_list=["relu", "elementwise_add"]))
#: contrib.basic_gru, contrib.BasicGRUUnit
x = data(np.ones((2, 3, 2)))  # [batch, steps, width]
outputs, last = fluid.contrib.basic_gru(x, None, hidden_size=4, param_attr=fluid.ParamAttr(initializer=zero), bias_attr=fluid.ParamAttr(initializer=zero))
print(outputs.shape, last.shape)
show(last)
with fluid.dygraph.guard():  # one step of it
    unit = fluid.contrib.BasicGRUUnit("unit", hidden_size=4, dtype="float32")
    h = fluid.dygraph.to_variable(np.zeros([2, 4], "float32"))
    print(unit(fluid.dygraph.to_variable(np.ones([2, 2], "float32")), h).shape)
#: contrib.fused_embedding_seq_pool
table = fluid.initializer.NumpyArrayInitializer(np.arange(8.0, dtype="float32").reshape(4, 2))
words = data([[1], [3], [2]], lengths=[[2, 1]])
show(fluid.contrib.fused_embedding_seq_pool(words, [4, 2], param_attr=table))  # the sum of each sequence's rows
#: contrib.match_matrix_tensor
x, y = data([[1.0, 2.0], [3.0, 4.0]], lengths=[[2]]), data([[1.0, 1.0]], lengths=[[1]])
scores, partial = fluid.contrib.match_matrix_tensor(x, y, channel_num=1, param_attr=fluid.ParamAttr(initializer=one))
show(scores)  # every word of x with every word of y
#: contrib.sequence_topk_avg_pooling
scores = data([[4.0], [1.0], [3.0]], lengths=[[3]])  # one row of three columns
row, column = data([[0.0]], lengths=[[1]]), data([[0.0], [0.0], [0.0]], lengths=[[3]])
show(fluid.contrib.sequence_topk_avg_pooling(scores, row, column, topks=[1, 2], channel_num=1))
#: contrib.var_conv_2d
x = data([[1.0], [2.0], [3.0], [4.0]], lengths=[[4]])  # one picture of 2 x 2
side = data([[0.0], [0.0]], lengths=[[2]])
show(fluid.contrib.var_conv_2d(x, side, side, input_channel=1, output_channel=1, filter_size=1, param_attr=fluid.ParamAttr(initializer=half)))
#: contrib.tree_conv
nodes, edges = data(np.ones((1, 3, 2))), data([[[1, 2], [1, 3]]], dtype="int32")  # node 1 has the children 2 and 3
show(fluid.contrib.tree_conv(nodes, edges, output_size=1, num_filters=1, max_depth=2, act=None, param_attr=fluid.ParamAttr(initializer=one), bias_attr=False))
#: contrib.partial_concat, contrib.partial_sum
x, y = data([[1.0, 2.0, 3.0]]), data([[10.0, 20.0, 30.0]])
show(fluid.contrib.partial_concat([x, y], start_index=1, length=2), fluid.contrib.partial_sum([x, y], start_index=0, length=2))
#: contrib.multiclass_nms2
boxes = data([[[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 0.0, 30.0, 10.0]]])
scores = data([[[0.9, 0.8, 0.7]]])  # of one class
kept, index = fluid.contrib.multiclass_nms2(boxes, scores, 0.1, 10, 10, 0.3, normalized=False, background_label=-1, return_index=True)
show(kept, index)
#: contrib.ctr_metric_bundle
p, label = data([[0.5], [0.9]]), data([[0.0], [1.0]])
squares, absolutes, probability, q, positives, count = fluid.contrib.ctr_metric_bundle(p, label)
show(squares, absolutes, positives, count)
#: contrib.op_freq_statistic
layers.fc(layers.fc(data([[1.0, 2.0]]), 2), 1)
single, pairs = fluid.contrib.op_freq_statistic(fluid.default_main_program())
print(single)
#: contrib.extend_with_decoupled_weight_decay, contrib.extend_optimizer.extend_optimizer_with_weight_decay.DecoupledWeightDecay
x = data([[1.0]])
y = layers.fc(x, 1, param_attr=fluid.ParamAttr(name="w", initializer=one), bias_attr=False)
decayed = fluid.contrib.extend_with_decoupled_weight_decay(fluid.optimizer.SGD)  # as AdamW does
decayed(learning_rate=0.0, weight_decay=0.1).minimize(layers.mean(y))
show(y)
show(fluid.default_main_program().global_block().var("w"))
decay = fluid.contrib.extend_optimizer.extend_optimizer_with_weight_decay.DecoupledWeightDecay
print([kind.__name__ for kind in decayed.__mro__ if kind is decay])  # what it adds to the optimizer
#: contrib.mixed_precision.AutoMixedPrecisionLists, contrib.mixed_precision.decorator.OptimizerWithMixedPrecision
lists = fluid.contrib.mixed_precision.AutoMixedPrecisionLists(custom_white_list={"scale"}, custom_black_list={"mul"})
print("scale" in lists.white_list, "mul" in lists.white_list)
optimizer = fluid.contrib.mixed_precision.decorate(fluid.optimizer.SGD(0.1), amp_lists=lists, init_loss_scaling=8.0)
print(type(optimizer) is fluid.contrib.mixed_precision.decorator.OptimizerWithMixedPrecision)
optimizer.minimize(layers.mean(layers.fc(data([[1.0, 2.0]]), 1, param_attr=one)))
show(optimizer.get_loss_scaling())
#: contrib.mixed_precision.fp16_utils.rewrite_program, contrib.mixed_precision.fp16_utils.find_true_prev_op, contrib.mixed_precision.fp16_utils.find_true_post_op
x = data([[1.0, 2.0]])
y = layers.relu(layers.fc(x, 1, bias_attr=False))
program = fluid.default_main_program()
ops = program.global_block().ops
print(fluid.contrib.mixed_precision.fp16_utils.find_true_prev_op(ops, ops[-1], ops[-1].input("X")[0]).type)
print([op.type for op in fluid.contrib.mixed_precision.fp16_utils.find_true_post_op(ops, ops[0], ops[0].output("Out")[0])])
fluid.contrib.mixed_precision.fp16_utils.rewrite_program(program, fluid.contrib.mixed_precision.AutoMixedPrecisionLists())
print([op.type for op in program.global_block().ops])
#: contrib.layers.search_pyramid_hash
words = fluid.layers.cast(data([[3], [5], [7]], lengths=[[3]]), "int32")
rows = fluid.contrib.layers.search_pyramid_hash(
    words, num_emb=4, space_len=100, pyramid_layer=3, rand_len=4, drop_out_percent=0.0, is_training=False, use_filter=False,
    white_list_len=0, black_list_len=0, seed=1, lr=0.1, param_attr=fluid.ParamAttr(initializer=half),
)
show(rows)  # a row for each n-gram: two of two words, one of three
#: contrib.layers.rank_attention
try:
    fluid.contrib.layers.rank_attention(data([[1.0, 2.0]]), data([[1, 1, 0]]), [4, 3], fluid.ParamAttr())
except NotImplementedError:
    print("for GPUs only, in 1.8.5 too")
#: contrib.summary, contrib.model_stat.summary
picture = fluid.data("picture", [None, 1, 8, 8])
layers.fc(fluid.nets.simple_img_conv_pool(picture, num_filters=4, filter_size=3, pool_size=2, pool_stride=2, act="relu"), 10)
fluid.contrib.summary(fluid.default_main_program())
#: contrib.AutoMixedPrecisionLists, contrib.decorate
lists = fluid.contrib.AutoMixedPrecisionLists(custom_white_list=["relu"], custom_black_list=["mul"])
loss = layers.mean(layers.fc(data([[1.0, 2.0]]), 1))
optimizer = fluid.contrib.decorate(fluid.optimizer.SGD(0.1), lists)
optimizer.minimize(loss)
print([op.type for op in fluid.default_main_program().global_block().ops if op.type in ("cast", "mul")])  # mul stays float32
