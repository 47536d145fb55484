"""fluid.layers: convolution, pooling, images

Images are [batch, channels, height, width] unless data_format says "NHWC".
"""
# ruff: noqa
#: setup
one = fluid.initializer.Constant(1.0)


def image(height, width, channels=1):
    return data(np.arange(channels * height * width, dtype="float32").reshape(1, channels, height, width))
#: layers.conv2d
x = image(3, 3)
show(layers.conv2d(x, num_filters=1, filter_size=2, param_attr=one, bias_attr=False))
show(layers.conv2d(x, num_filters=1, filter_size=3, padding="SAME", param_attr=one, act="relu"))
#: layers.conv2d_transpose
x = image(2, 2)
show(layers.conv2d_transpose(x, num_filters=1, filter_size=2, stride=2, param_attr=one, bias_attr=False))
#: layers.conv3d
x = data(np.ones((1, 1, 2, 2, 2)))
show(layers.conv3d(x, num_filters=1, filter_size=2, param_attr=one, bias_attr=False))
#: layers.deformable_conv
x = image(3, 3)
offset = layers.fill_constant([1, 8, 2, 2], "float32", 0.5)  # y and x for each of 2 x 2 points
mask = layers.fill_constant([1, 4, 2, 2], "float32", 1.0)
show(layers.deformable_conv(x, offset, mask, num_filters=1, filter_size=2, im2col_step=1, param_attr=one, bias_attr=False))
#: layers.pool2d
x = image(4, 4)
show(layers.pool2d(x, pool_size=2, pool_type="max", pool_stride=2))
show(layers.pool2d(x, pool_type="avg", global_pooling=True))
#: layers.pool3d
x = data(np.arange(8.0).reshape(1, 1, 2, 2, 2))
show(layers.pool3d(x, pool_size=2, pool_type="avg"))
#: layers.adaptive_pool2d
x = image(4, 4)
show(layers.adaptive_pool2d(x, pool_size=[1, 2], pool_type="avg"))
#: layers.resize_bilinear
x = image(2, 2)
show(layers.resize_bilinear(x, out_shape=[3, 3]))
show(layers.resize_bilinear(x, out_shape=[3, 3], align_corners=False, align_mode=1))
#: layers.resize_nearest
x = image(2, 2)
show(layers.resize_nearest(x, scale=2.0, align_corners=False))
#: layers.image_resize
x = image(2, 2)
show(layers.image_resize(x, out_shape=[1, 3], resample="NEAREST"))
#: layers.lrn
x = data(np.ones((1, 3, 1, 1)))
show(layers.lrn(x, n=3, k=1.0, alpha=1.0, beta=1.0))
#: layers.affine_channel
x = image(1, 2, channels=2)
show(layers.affine_channel(x, scale=data([1.0, 10.0]), bias=data([0.5, 0.0])))
#: layers.temporal_shift
x = data(np.arange(8.0).reshape(2, 4, 1, 1))  # two frames of four channels
show(layers.temporal_shift(x, seg_num=2, shift_ratio=0.25))
#: layers.roi_pool
x = image(4, 4)
boxes = data([[0.0, 0.0, 3.0, 3.0]], lengths=[[1]])
show(layers.roi_pool(x, boxes, pooled_height=2, pooled_width=2))
#: layers.roi_align
x = image(4, 4)
boxes = data([[0.0, 0.0, 2.0, 2.0]], lengths=[[1]])
show(layers.roi_align(x, boxes, pooled_height=1, pooled_width=1, sampling_ratio=2))
#: layers.prroi_pool
x = image(4, 4)
boxes = data([[0.0, 0.0, 2.0, 2.0]], lengths=[[1]])
show(layers.prroi_pool(x, boxes, pooled_height=1, pooled_width=1))
