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
#: initializer.Constant, initializer.ConstantInitializer
w = layers.create_parameter([2], "float32", default_initializer=fluid.initializer.Constant(0.5))
show(w)
#: initializer.NumpyArrayInitializer
values = np.array([[1.0, 2.0]], dtype="float32")
w = layers.create_parameter([1, 2], "float32", default_initializer=fluid.initializer.NumpyArrayInitializer(values))
show(w)
#: initializer.Uniform, initializer.UniformInitializer
w = layers.create_parameter([50, 50], "float32", default_initializer=fluid.initializer.Uniform(low=-0.1, high=0.1))
show(layers.reduce_all(layers.abs(w) <= 0.1))
#: initializer.Normal, initializer.NormalInitializer
w = layers.create_parameter([200, 200], "float32", default_initializer=fluid.initializer.Normal(loc=2.0, scale=0.01))
show(layers.abs(layers.reduce_mean(w) - 2.0) < 0.001)
#: initializer.TruncatedNormal, initializer.TruncatedNormalInitializer
w = layers.create_parameter([200], "float32", default_initializer=fluid.initializer.TruncatedNormal(scale=0.5))
show(layers.reduce_all(layers.abs(w) <= 1.0))  # never farther than two deviations
#: initializer.Xavier, initializer.XavierInitializer
w = layers.create_parameter([30, 20], "float32", default_initializer=fluid.initializer.Xavier())
show(layers.reduce_all(layers.abs(w) <= (6.0 / 50) ** 0.5))  # sqrt(6 / (fan_in + fan_out))
#: initializer.MSRA, initializer.MSRAInitializer
w = layers.create_parameter([30, 20], "float32", default_initializer=fluid.initializer.MSRA(uniform=True))
show(layers.reduce_all(layers.abs(w) <= (6.0 / 30) ** 0.5))  # sqrt(6 / fan_in)
#: initializer.Bilinear
x = data([[[[1.0, 2.0]]]])
attr = fluid.ParamAttr(initializer=fluid.initializer.Bilinear())
show(layers.conv2d_transpose(x, 1, filter_size=4, stride=2, padding=1, param_attr=attr, bias_attr=False))
