"""fluid.nets

Layers that often stand together.
"""
# ruff: noqa
#: setup
def words():
    return data([[1.0], [2.0], [30.0]], lengths=[[2, 1]])


one = fluid.initializer.Constant(1.0)


def image(height, width, channels=1):
    return data(np.arange(channels * height * width, dtype="float32").reshape(1, channels, height, width))
#: nets.sequence_conv_pool
one = fluid.initializer.Constant(1.0)
show(fluid.nets.sequence_conv_pool(words(), num_filters=1, filter_size=3, param_attr=one, bias_attr=False, act=None, pool_type="sum"))
#: nets.simple_img_conv_pool
x = image(5, 5)
show(fluid.nets.simple_img_conv_pool(x, num_filters=1, filter_size=2, pool_size=2, pool_stride=2, param_attr=one, act="relu"))
#: nets.img_conv_group
x = image(4, 4)
out = fluid.nets.img_conv_group(x, conv_num_filter=[2, 2], pool_size=2, pool_stride=2, conv_act="relu")
show(layers.shape(out))
#: nets.glu
show(fluid.nets.glu(data([[1.0, 2.0, 0.0, 0.0]]), dim=-1))  # the first half times sigmoid of the second
#: nets.scaled_dot_product_attention
q = data(np.ones((1, 1, 2)))
k = data(np.array([[[1.0, 1.0], [-1.0, -1.0]]]))
show(fluid.nets.scaled_dot_product_attention(q, k, k, num_heads=1))
