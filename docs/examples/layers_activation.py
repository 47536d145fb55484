"""fluid.layers: activations

Functions of one tensor, element by element, and softmax.
"""
# ruff: noqa
#: layers.relu
x = data([[-1.0, 0.0, 2.0]])
show(layers.relu(x))
#: layers.relu6
x = data([[-1.0, 3.0, 8.0]])
show(layers.relu6(x), layers.relu6(x, threshold=4.0))
#: layers.leaky_relu
x = data([[-1.0, 2.0]])
show(layers.leaky_relu(x, alpha=0.1))
#: layers.elu
x = data([[-1.0, 2.0]])
show(layers.elu(x, alpha=0.5))
#: layers.prelu
x = data(np.full((1, 2, 1, 2), -4.0))
show(layers.prelu(x, mode="channel", param_attr=fluid.initializer.Constant(0.25)))
#: layers.sigmoid
x = data([[-2.0, 0.0, 2.0]])
show(layers.sigmoid(x))
#: layers.tanh
x = data([[-1.0, 0.0, 1.0]])
show(layers.tanh(x))
#: layers.softsign
x = data([[-3.0, 0.0, 1.0]])
show(layers.softsign(x))  # x / (1 + |x|)
#: layers.swish
x = data([[-1.0, 0.0, 1.0]])
show(layers.swish(x))  # x * sigmoid(x)
#: layers.thresholded_relu
x = data([[0.5, 1.5, 3.0]])
show(layers.thresholded_relu(x, threshold=2.0))
#: layers.softmax
x = data([[0.0, 0.0, 1.0986123]])
show(layers.softmax(x))
#: layers.log_softmax
x = data([[0.0, 0.0, 1.0986123]])
show(layers.log_softmax(x))
#: layers.exp
x = data([0.0, 1.0])
show(layers.exp(x))
#: layers.log
x = data([1.0, 2.7182817])
show(layers.log(x))
#: layers.sqrt
x = data([4.0, 9.0])
show(layers.sqrt(x))
#: layers.rsqrt
x = data([4.0, 0.25])
show(layers.rsqrt(x))
#: layers.square
x = data([-3.0, 4.0])
show(layers.square(x))
#: layers.abs
x = data([-3.0, 4.0])
show(layers.abs(x))
#: layers.ceil
x = data([-1.5, 1.2])
show(layers.ceil(x))
#: layers.floor
x = data([-1.5, 1.2])
show(layers.floor(x))
#: layers.sin
x = data([0.0, 1.5707964])
show(layers.sin(x))
#: layers.cos
x = data([0.0, 3.1415927])
show(layers.cos(x))
#: layers.pow
x = data([1.0, 2.0, 3.0])
show(layers.pow(x, factor=2.0))
show(layers.pow(x, factor=layers.fill_constant([1], "float32", 3.0)))
#: layers.dropout
x = data(np.ones((2, 4)))
show(layers.dropout(x, 0.25, is_test=True))  # "downgrade_in_infer" scales in test
show(layers.dropout(x, 0.25, is_test=True, dropout_implementation="upscale_in_train"))
kept = layers.dropout(x, 0.5, seed=1, dropout_implementation="upscale_in_train")
show(layers.reduce_max(kept))  # what is kept counts twice
#: layers.brelu
x = data([[-1.0, 3.0, 30.0]])
show(layers.brelu(x, t_min=0.0, t_max=24.0))
#: layers.selu
x = data([[-1.0, 1.0]])
show(layers.selu(x))
#: layers.gelu
x = data([[-1.0, 1.0]])
show(layers.gelu(x), layers.gelu(x, approximate=True))
#: layers.hard_sigmoid
x = data([[-10.0, 1.0, 10.0]])
show(layers.hard_sigmoid(x))
#: layers.hard_swish
x = data([[-4.0, 1.0, 4.0]])
show(layers.hard_swish(x))
#: layers.mish
x = data([[-1.0, 1.0]])
show(layers.mish(x))
#: layers.stanh
x = data([[-1.0, 1.0]])
show(layers.stanh(x))
#: layers.soft_relu
x = data([[-1.0, 1.0]])
show(layers.soft_relu(x))
#: layers.softplus
x = data([[-1.0, 1.0]])
show(layers.softplus(x))
#: layers.softshrink
x = data([[-1.0, 0.2, 1.0]])
show(layers.softshrink(x, alpha=0.5))
#: layers.hard_shrink
x = data([[-1.0, 0.2, 1.0]])
show(layers.hard_shrink(x, threshold=0.5))
#: layers.tanh_shrink
x = data([[-1.0, 1.0]])
show(layers.tanh_shrink(x))
#: layers.logsigmoid
x = data([[-1.0, 1.0]])
show(layers.logsigmoid(x))
#: layers.maxout
x = data(np.array([1.0, 4.0, 3.0, 2.0]).reshape(1, 4, 1, 1))
show(layers.maxout(x, groups=2))
#: layers.erf
show(layers.erf(data([0.0, 1.0])))
#: layers.reciprocal
show(layers.reciprocal(data([2.0, 4.0])))
#: layers.round
show(layers.round(data([0.5, 1.4, -1.6])))
#: layers.sign
show(layers.sign(data([-2.0, 0.0, 3.0])))
#: layers.log1p
show(layers.log1p(data([0.0, 1.0])))
#: layers.acos
show(layers.acos(data([0.0, 1.0])))
#: layers.asin
show(layers.asin(data([0.0, 1.0])))
#: layers.atan
show(layers.atan(data([0.0, 1.0])))
