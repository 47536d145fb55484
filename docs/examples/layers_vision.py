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
#: layers.conv3d_transpose
x = data(np.ones((1, 1, 1, 1, 2)))
show(layers.conv3d_transpose(x, num_filters=1, filter_size=[1, 1, 2], stride=[1, 1, 2], param_attr=one, bias_attr=False))
#: layers.adaptive_pool3d
x = data(np.arange(8.0).reshape(1, 1, 2, 2, 2))
show(layers.adaptive_pool3d(x, pool_size=[1, 1, 2], pool_type="max"))
#: layers.resize_trilinear
x = data(np.arange(8.0).reshape(1, 1, 2, 2, 2))
show(layers.shape(layers.resize_trilinear(x, out_shape=[3, 3, 3])))
#: layers.image_resize_short
show(layers.shape(layers.image_resize_short(data(np.ones((1, 1, 4, 8))), out_short_len=2)))
#: layers.affine_grid, layers.grid_sampler
theta = data([[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])  # upside down
grid = layers.affine_grid(theta, out_shape=[1, 1, 2, 2])
show(layers.grid_sampler(image(2, 2), grid))
#: layers.pixel_shuffle
show(layers.pixel_shuffle(image(1, 1, channels=4), upscale_factor=2))
#: layers.space_to_depth
show(layers.shape(layers.space_to_depth(image(4, 4, channels=4), blocksize=2)))
#: layers.shuffle_channel
show(layers.shuffle_channel(image(1, 1, channels=4), group=2))
#: layers.unfold
show(layers.unfold(image(2, 3), kernel_sizes=2))
#: layers.fsp_matrix
show(layers.fsp_matrix(image(1, 2, channels=2), image(1, 2, channels=1)))
#: layers.psroi_pool
boxes = data([[0.0, 0.0, 1.0, 1.0]], lengths=[[1]])
show(layers.psroi_pool(image(2, 2, channels=4), boxes, output_channels=2, spatial_scale=1.0, pooled_height=1, pooled_width=2))
#: layers.add_position_encoding
show(layers.add_position_encoding(data(np.zeros((1, 2, 4))), alpha=1.0, beta=1.0))
#: layers.similarity_focus
x = data(np.array([0.8, 0.1, 0.4, 0.5]).reshape(1, 1, 2, 2))
show(layers.similarity_focus(x, axis=1, indexes=[0]))
#: layers.deformable_roi_pooling
x = image(4, 4)
rois = data([[0.0, 0.0, 3.0, 3.0]], lengths=[[1]])
moved = data(np.zeros((1, 2, 1, 1)))
show(layers.deformable_roi_pooling(x, rois, moved, no_trans=True, pooled_height=1, pooled_width=1, sample_per_part=2))
#: layers.roi_perspective_transform
x = image(3, 3)
corners = data([[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]], lengths=[[1]])  # from the upper left corner on
out, mask, matrix = layers.roi_perspective_transform(x, corners, transformed_height=2, transformed_width=2)
show(out, mask)
