"""fluid.initializer

How parameters begin: given to a layer as `param_attr`, or inside a ParamAttr.
"""
# ruff: noqa
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
