"""fluid.layers: arithmetic, comparison, reduction, products

Two tensors are combined as operators do it: the shape of `y` is a part of the shape of `x`, beginning at `axis`.
"""
# ruff: noqa
#: layers.elementwise_add
x = data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
rows = data([10.0, 20.0])
show(layers.elementwise_add(x, rows, axis=0))
#: layers.elementwise_sub
x, y = data([[5.0, 7.0]]), data([[1.0, 10.0]])
show(layers.elementwise_sub(x, y, act="relu"))
#: layers.elementwise_mul
x, y = data([[1.0, 2.0], [3.0, 4.0]]), data([10.0, 100.0])
show(layers.elementwise_mul(x, y))
#: layers.elementwise_div
x, y = data([[1.0, 9.0]]), data([[4.0, 3.0]])
show(layers.elementwise_div(x, y))
#: layers.elementwise_max
x, y = data([[1.0, 9.0]]), data([[4.0, 3.0]])
show(layers.elementwise_max(x, y))
#: layers.elementwise_min
x, y = data([[1.0, 9.0]]), data([[4.0, 3.0]])
show(layers.elementwise_min(x, y))
#: layers.elementwise_pow
x, y = data([[2.0, 3.0]]), data([[3.0, 2.0]])
show(layers.elementwise_pow(x, y))
#: layers.elementwise_mod
x, y = data([[7, -7]]), data([[3, 3]])
show(layers.elementwise_mod(x, y))  # the sign of the dividend
#: layers.elementwise_floordiv
x, y = data([[7, 9]]), data([[3, 3]])
show(layers.elementwise_floordiv(x, y))
#: layers.sum
x, y = data([[1.0, 2.0]]), data([[10.0, 20.0]])
show(layers.sum([x, y]))
#: layers.sums
total = layers.fill_constant([2], "float32", 0.0)
layers.sums([data([1.0, 2.0]), data([10.0, 20.0])], out=total)
show(total)
#: layers.mean
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.mean(x))
#: layers.scale
x = data([1.0, 2.0])
show(layers.scale(x, scale=2.0, bias=1.0))
show(layers.scale(x, scale=2.0, bias=1.0, bias_after_scale=False))
#: layers.clip
x = data([-5.0, 0.5, 5.0])
show(layers.clip(x, min=-1.0, max=1.0))
#: layers.reduce_sum
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reduce_sum(x), layers.reduce_sum(x, dim=0), layers.reduce_sum(x, dim=1, keep_dim=True))
#: layers.reduce_mean
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reduce_mean(x, dim=-1))
#: layers.reduce_max
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reduce_max(x), layers.reduce_max(x, dim=0))
#: layers.reduce_min
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reduce_min(x, dim=1))
#: layers.reduce_prod
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reduce_prod(x, dim=0))
#: layers.reduce_all
x = data([[True, False], [True, True]], dtype="bool")
show(layers.reduce_all(x, dim=1))
#: layers.cumsum
x = data([[1.0, 2.0, 3.0]])
show(layers.cumsum(x, axis=1), layers.cumsum(x, axis=1, exclusive=True), layers.cumsum(x, axis=1, reverse=True))
#: layers.matmul
x, y = data([[1.0, 2.0], [3.0, 4.0]]), data([[1.0, 0.0], [1.0, 1.0]])
show(layers.matmul(x, y), layers.matmul(x, y, transpose_y=True, alpha=10.0))
#: layers.mul
x = data(np.arange(8).reshape(2, 2, 2) + 0.0)  # seen as [2, 4]
y = data(np.ones((4, 1)))
show(layers.mul(x, y, x_num_col_dims=1))
#: layers.bilinear_tensor_product
x, y = data([[1.0, 2.0]]), data([[3.0, 4.0, 5.0]])
one = fluid.initializer.Constant(1.0)
show(layers.bilinear_tensor_product(x, y, size=2, param_attr=one))  # x W_i y
#: layers.cos_sim
x, y = data([[1.0, 0.0], [1.0, 1.0]]), data([[0.0, 2.0], [3.0, 3.0]])
show(layers.cos_sim(x, y))
#: layers.l2_normalize
x = data([[3.0, 4.0]])
show(layers.l2_normalize(x, axis=1))
#: layers.less_than
x, y = data([1, 2, 3]), data([2, 2, 2])
show(layers.less_than(x, y))
#: layers.greater_than
x, y = data([1, 2, 3]), data([2, 2, 2])
show(layers.greater_than(x, y))
#: layers.equal
x, y = data([1, 2, 3]), data([2, 2, 2])
show(layers.equal(x, y))
#: layers.not_equal
x, y = data([1, 2, 3]), data([2, 2, 2])
show(layers.not_equal(x, y))
#: layers.logical_and
x, y = data([True, True], dtype="bool"), data([True, False], dtype="bool")
show(layers.logical_and(x, y))
#: layers.logical_or
x, y = data([False, True], dtype="bool"), data([False, False], dtype="bool")
show(layers.logical_or(x, y))
#: layers.logical_not
x = data([True, False], dtype="bool")
show(layers.logical_not(x))
#: layers.isfinite
x = data([1.0, float("inf")])
show(layers.isfinite(x))  # one answer for the whole tensor
#: layers.is_empty
x = data([1.0])
show(layers.is_empty(x))
#: layers.increment
step = layers.fill_constant([1], "float32", 5.0)
show(layers.increment(step, value=2.0))
#: layers.logical_xor
x, y = data([True, True], dtype="bool"), data([True, False], dtype="bool")
show(layers.logical_xor(x, y))
#: layers.greater_equal
show(layers.greater_equal(data([1, 2, 3]), data([2, 2, 2])))
#: layers.less_equal
show(layers.less_equal(data([1, 2, 3]), data([2, 2, 2])))
#: layers.reduce_any
x = data([[True, False], [False, False]], dtype="bool")
show(layers.reduce_any(x, dim=1))
#: layers.has_inf
show(layers.has_inf(data([1.0, float("inf")])))
#: layers.has_nan
show(layers.has_nan(data([1.0, 2.0])))
#: layers.clip_by_norm
show(layers.clip_by_norm(data([[3.0, 4.0]]), max_norm=1.0))
#: layers.addmm
show(layers.addmm(data([[1.0]]), data([[1.0, 2.0]]), data([[3.0], [4.0]]), alpha=1.0, beta=10.0))  # 10 input + x y
#: layers.addcmul
x, a, b = data([[1.0, 1.0]]), data([[2.0, 3.0]]), data([[10.0, 20.0]])
show(layers.addcmul(x, a, b, value=0.5))  # x + 0.5 * a * b
#: layers.allclose
x, y = data([1.0, 2.0]), data([1.0, 2.1])
show(layers.allclose(x, y), layers.allclose(x, y, atol=0.2))
#: layers.bmm
x, y = data(np.ones((2, 1, 3))), data(np.arange(12.0).reshape(2, 3, 2))
show(layers.bmm(x, y))  # a product for each of the batch
#: layers.dot, layers.cross
x, y = data([[1.0, 0.0, 2.0]]), data([[0.0, 1.0, 3.0]])
show(layers.dot(x, y), layers.cross(x, y, dim=1))
#: layers.dist
x, y = data([[3.0, 0.0]]), data([[0.0, 4.0]])
show(layers.dist(x, y), layers.dist(x, y, p=1), layers.dist(x, y, p=float("inf")))
#: layers.kron
show(layers.kron(data([[1.0, 2.0]]), data([[1.0], [10.0]])))  # each element of x times the whole of y
#: layers.logsumexp
x = data(np.log([[1.0, 3.0], [2.0, 2.0]]))
show(layers.logsumexp(x, dim=1))  # log 4, without leaving the range of floats
#: layers.clamp
show(layers.clamp(data([-2.0, 0.5, 9.0]), min=0.0, max=1.0))
#: layers.elementwise_equal
show(layers.elementwise_equal(data([1, 2]), data([1, 3])))
#: layers.trace
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.trace(x), layers.trace(x, offset=1))
