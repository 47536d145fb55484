"""fluid.layers: dense layers, embeddings, normalization

Layers with parameters. `param_attr` and `bias_attr` take a ParamAttr, a name or an initializer; False means none.
"""
# ruff: noqa
#: setup
one = fluid.initializer.Constant(1.0)
#: layers.fc
x = data([[1.0, 2.0]])
show(layers.fc(x, size=2, param_attr=one, bias_attr=fluid.initializer.Constant(-2.0), act="relu"))
#: layers.embedding
table = fluid.initializer.NumpyArrayInitializer(np.arange(8.0, dtype="float32").reshape(4, 2))
words = data([[1], [3], [0]], lengths=[[2, 1]])
show(layers.embedding(words, size=[4, 2], param_attr=table, padding_idx=0))  # the row of padding_idx reads as zeros
#: fluid.embedding
table = fluid.initializer.NumpyArrayInitializer(np.arange(8.0, dtype="float32").reshape(4, 2))
show(fluid.embedding(data([[1, 3]]), size=[4, 2], param_attr=table))  # ids need no last dimension of 1
#: layers.batch_norm
x = data([[1.0, 10.0], [3.0, 30.0]])
show(layers.batch_norm(x))  # each column has mean 0 and variance 1
show(layers.batch_norm(x, is_test=True))  # by the moving statistics, 0 and 1 before training
#: layers.layer_norm
x = data([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
show(layers.layer_norm(x))
#: layers.group_norm
x = data(np.arange(8.0).reshape(1, 4, 1, 2))
show(layers.group_norm(x, groups=2))
#: layers.instance_norm
x = data(np.arange(4.0).reshape(1, 2, 1, 2))
show(layers.instance_norm(x))
#: layers.spectral_norm
w = layers.create_parameter([2, 2], "float32", default_initializer=fluid.initializer.Constant(3.0))
show(layers.spectral_norm(w, dim=0, power_iters=5))  # the greatest singular value becomes 1
#: ParamAttr
attr = fluid.ParamAttr(
    name="shared_w",
    initializer=one,
    learning_rate=0.5,
    regularizer=fluid.regularizer.L2Decay(0.1),
    trainable=True,
)
x = data([[1.0, 2.0]])
first = layers.fc(x, size=2, param_attr=attr, bias_attr=False)
second = layers.fc(x, size=2, param_attr=attr, bias_attr=False)  # the same parameter
show(first + second)
#: layer_helper.LayerHelper
def halved_fc(x, size):
    """A layer of one's own."""
    helper = fluid.layer_helper.LayerHelper("halved_fc")
    w = helper.create_parameter(one, shape=[x.shape[-1], size], dtype=x.dtype)
    out = helper.create_variable_for_type_inference(x.dtype)
    helper.append_op(type="mul", inputs={"X": [x], "Y": [w]}, outputs={"Out": [out]})
    return layers.scale(out, 0.5)

show(halved_fc(data([[1.0, 2.0]]), 2))
print(fluid.default_main_program().all_parameters()[0].name)
#: layers.data_norm
x = data([[1.0, 10.0], [3.0, 30.0]])
show(layers.data_norm(x))  # by sums over all batches so far, which begin with 10,000 samples of mean 0 and variance 1
#: layers.continuous_value_model
# an embedding whose first two columns are shows and clicks
rows = data([[1.0, 1.0, 0.5, 0.6], [1.0, 1.0, 0.7, 0.8]])
counts = data([[3.0, 1.0], [7.0, 0.0]])
show(layers.continuous_value_model(rows, counts))  # log(shows + 1) and log(clicks + 1) - log(shows + 1)
show(layers.continuous_value_model(rows, counts, use_cvm=False))
#: layers.filter_by_instag
rows = data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
tags = data([[1], [2], [1]], lengths=[[1, 1, 1]])
kept, weight = layers.filter_by_instag(rows, tags, data([1]), is_lod=False)
show(kept, weight)
#: layers.inplace_abn
x = data([[1.0, 10.0], [3.0, 30.0]])
show(layers.inplace_abn(x, act="leaky_relu", act_alpha=0.5))  # batch normalization and activation
