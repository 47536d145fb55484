"""fluid.layers: tensors, their making and their shapes

Constants, random tensors, variables that stay, and what changes the order or the shape of elements.
"""
# ruff: noqa
#: layers.data
image = layers.data("image", shape=[1, 28, 28])  # the batch comes in front
words = layers.data("words", shape=[1], dtype="int64", lod_level=1)
print(image.shape, words.shape, words.lod_level)
#: fluid.data
image = fluid.data("image", shape=[None, 1, 28, 28])  # complete; what is fed is checked
print(image.shape)
#: layers.fill_constant
show(layers.fill_constant([2, 3], "float32", 1.5))
#: layers.fill_constant_batch_size_like
x = data([[1.0], [2.0], [3.0]])
show(layers.fill_constant_batch_size_like(x, shape=[1, 2], dtype="int64", value=7))
#: layers.zeros
show(layers.zeros([1, 3], "int64"))
#: layers.ones
show(layers.ones([1, 3], "float32"))
#: layers.zeros_like
x = data([[1.0, 2.0]])
show(layers.zeros_like(x))
#: layers.diag
show(layers.diag(data([1.0, 2.0])))
#: layers.range
show(layers.range(0, 10, 3, "int64"))
#: layers.assign
show(layers.assign(np.array([[1, 2], [3, 4]], dtype="int32")))
#: layers.cast
x = data([0.0, 1.7, -1.7])
show(layers.cast(x, "int64"), layers.cast(x, "bool"))
#: layers.create_tensor
kept = layers.create_tensor("float32", persistable=True, name="kept")
layers.assign(data([1.0, 2.0]), kept)
show(kept)
#: layers.create_parameter
w = layers.create_parameter([2, 2], "float32", default_initializer=fluid.initializer.Constant(3.0))
show(w)
print(w.trainable, w.persistable)
#: layers.create_global_var
count = layers.create_global_var([1], value=0.0, dtype="float32", persistable=True)
layers.increment(count)
show(count)
#: layers.uniform_random
x = layers.uniform_random([50, 50], min=-2.0, max=4.0)
show(layers.shape(x), layers.reduce_all(x < 4.0), layers.reduce_all(x >= -2.0))
#: layers.uniform_random_batch_size_like
x = layers.uniform_random_batch_size_like(data(np.ones((3, 2))), shape=[-1, 5])
show(layers.shape(x))
#: layers.gaussian_random
x = layers.gaussian_random([10000], mean=3.0, std=0.01)
show(layers.cast(layers.scale(layers.reduce_mean(x), 10.0, bias=0.5), "int64"))  # the mean is 3.0
#: layers.gaussian_random_batch_size_like
x = layers.gaussian_random_batch_size_like(data(np.ones((3, 2))), shape=[-1, 5])
show(layers.shape(x))
#: layers.sampling_id
x = data([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # a distribution in each row
show(layers.sampling_id(x))
#: layers.shape
show(layers.shape(data(np.ones((2, 3)))))
#: layers.reshape
x = data(np.arange(6.0).reshape(2, 3))
show(layers.reshape(x, [3, -1]), layers.reshape(x, [0, 3, 1]))  # 0 keeps a dimension
#: layers.squeeze
x = data(np.ones((2, 1, 3)))
show(layers.shape(layers.squeeze(x, axes=[1])))
#: layers.unsqueeze
x = data([[1.0, 2.0]])
show(layers.unsqueeze(x, axes=[0, 2]))
#: layers.flatten
x = data(np.ones((2, 3, 4)))
show(layers.shape(layers.flatten(x, axis=2)))
#: layers.transpose
x = data([[1.0, 2.0, 3.0]])
show(layers.transpose(x, perm=[1, 0]))
#: layers.concat
x, y = data([[1.0], [2.0]]), data([[3.0], [4.0]])
show(layers.concat([x, y], axis=1))
#: layers.split
x = data([[1.0, 2.0, 3.0, 4.0]])
left, right = layers.split(x, num_or_sections=[1, 3], dim=1)
show(left, right)
#: layers.stack
x, y = data([1.0, 2.0]), data([3.0, 4.0])
show(layers.stack([x, y], axis=1))
#: layers.unstack
show(*layers.unstack(layers.assign(np.array([[1.0, 2.0], [3.0, 4.0]], "float32")), axis=1))
#: layers.slice
x = data(np.arange(12.0).reshape(3, 4))
show(layers.slice(x, axes=[0, 1], starts=[1, -2], ends=[3, 10]))
#: layers.crop
x = data(np.arange(9.0).reshape(3, 3))
show(layers.crop(x, shape=[2, 2], offsets=[1, 0]))
#: layers.pad
x = data([[1.0, 2.0]])
show(layers.pad(x, paddings=[0, 1, 1, 0], pad_value=9.0))  # before and after, for each dimension
#: layers.pad2d
x = data(np.arange(1.0, 5.0).reshape(1, 1, 2, 2))
show(layers.pad2d(x, paddings=[1, 0, 0, 1], mode="reflect"))  # top, bottom, left, right
#: layers.expand
x = data([[1.0, 2.0]])
show(layers.expand(x, expand_times=[2, 2]))
#: layers.reverse
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.reverse(x, axis=[0]))
#: layers.gather
x = data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
show(layers.gather(x, index=data([2, 0])))
#: layers.gather_nd
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.gather_nd(x, index=data([[1, 0], [0, 1]])))
#: layers.scatter
x = layers.fill_constant([3, 2], "float32", 1.0)
index, updates = data([2, 0]), data([[5.0, 6.0], [7.0, 8.0]])
show(layers.scatter(x, index, updates))
#: layers.where
show(layers.where(data([0, 1, 0, 1]) > 0))  # where it is true
#: layers.one_hot
show(layers.one_hot(data([[1], [3]]), depth=4))
#: fluid.one_hot
show(fluid.one_hot(data([1, 3]), depth=4))  # ids need no last dimension of 1
#: layers.topk
x = data([[1.0, 9.0, 5.0]])
values, indices = layers.topk(x, k=2)
show(values, indices)
#: layers.argmax
x = data([[1.0, 9.0, 5.0], [7.0, 2.0, 3.0]])
show(layers.argmax(x, axis=1))
#: layers.argsort
x = data([[1.0, 9.0, 5.0]])
values, indices = layers.argsort(x, axis=1, descending=True)
show(values, indices)
#: layers.im2sequence
x = data(np.arange(9.0).reshape(1, 1, 3, 3))
show(layers.im2sequence(x, filter_size=2, stride=1))
#: layers.py_func
def twice(x):
    return np.array(x) * 2

def twice_backward(x, out, dout):
    return np.array(dout) * 2

x = data([[1.0, 2.0]])
out = fluid.default_main_program().current_block().create_var(name="twice", dtype="float32", shape=[-1, 2])
show(layers.py_func(twice, x, out, backward_func=twice_backward))
#: layers.Print
x = data([1.0])
show(layers.Print(x, first_n=0, message="x is "))  # x itself; the first runs print it
#: layers.ones_like
show(layers.ones_like(data([[5.0, 6.0]])))
#: layers.eye
show(layers.eye(2, 3))
#: layers.linspace
show(layers.linspace(0.0, 1.0, 5, "float32"))
#: layers.argmin
show(layers.argmin(data([[1.0, 9.0, 5.0], [7.0, 2.0, 3.0]]), axis=1))
#: layers.crop_tensor
x = data(np.arange(9.0).reshape(3, 3))
show(layers.crop_tensor(x, shape=[2, -1], offsets=[1, 1]))
#: layers.expand_as
show(layers.expand_as(data([[1.0, 2.0]]), data(np.zeros((2, 2)))))
#: layers.multiplex
x, y = data([[1.0, 2.0], [3.0, 4.0]]), data([[5.0, 6.0], [7.0, 8.0]])
show(layers.multiplex([x, y], data([[1], [0]], dtype="int32")))  # which tensor gives each row
#: layers.pad_constant_like
show(layers.pad_constant_like(data(np.zeros((2, 3))), data([[1.0, 2.0]]), pad_value=9.0))
#: layers.rank
show(layers.rank(data([[1.0]])))
#: layers.size
show(layers.size(data(np.ones((2, 3)))))
#: layers.scatter_nd
show(layers.scatter_nd(data([[1], [1]]), data([[1.0, 2.0], [3.0, 4.0]]), shape=[3, 2]))  # repeats add up
#: layers.scatter_nd_add
x = data([1.0, 1.0, 1.0])
show(layers.scatter_nd_add(x, data([[0], [0]]), data([10.0, 20.0])))
#: layers.shard_index
show(layers.shard_index(data([[1], [15]]), index_num=20, nshards=2, shard_id=0))
#: layers.strided_slice
x = data(np.arange(8.0))
show(layers.strided_slice(x, axes=[0], starts=[1], ends=[8], strides=[3]))
#: layers.unique
values, index = layers.unique(data([3, 1, 3]))
show(values, index)
#: layers.unique_with_counts
values, index, counts = layers.unique_with_counts(data([3, 1, 3]))
show(values, index, counts)
#: layers.triu
show(layers.triu(data(np.ones((2, 2)))))
#: layers.hash
show(layers.hash(data([[1], [2]], lengths=[[2]], dtype="int32"), hash_size=1000, num_hash=2))
#: layers.random_crop
show(layers.shape(layers.random_crop(data(np.ones((2, 5, 5))), shape=[3, 3])))
#: layers.autoincreased_step_counter
show(layers.autoincreased_step_counter(begin=5))
#: layers.tensor_array_to_tensor
array = layers.create_array("float32")
for k in range(2):
    layers.array_write(data([[1.0 + k]]), layers.fill_constant([1], "int64", k), array)
joined, sizes = layers.tensor_array_to_tensor(array, axis=1)
show(joined, sizes)
#: layers.arange
show(layers.arange(1, 7, 2), layers.arange(0.0, 1.0, 0.25))
#: layers.full, layers.full_like
show(layers.full([1, 2], 7.0), layers.full_like(data([[1, 2, 3]]), 9))
#: layers.tril
x = data([[1.0, 2.0], [3.0, 4.0]])
show(layers.tril(x), layers.tril(x, diagonal=-1))
#: layers.diag_embed
show(layers.diag_embed(data([[1.0, 2.0]])), layers.diag_embed(data([[5.0]]), offset=1))
#: layers.flip, layers.roll
x = data([[1, 2], [3, 4]])
show(layers.flip(x, dims=[1]), layers.roll(x, shifts=1), layers.roll(x, shifts=1, dims=0))
#: layers.t
show(layers.t(data([[1.0, 2.0, 3.0]])))
#: layers.index_select
x = data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
show(layers.index_select(x, data([2, 0]), dim=1))
#: layers.index_sample
x = data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
show(layers.index_sample(x, data([[2], [0]])))  # for each row its own columns
#: layers.meshgrid
rows, columns = layers.meshgrid([data([1, 2]), data([10, 20, 30])])
show(rows, columns)
#: layers.nonzero
x = data([[0.0, 5.0], [6.0, 0.0]])
show(layers.nonzero(x))  # the positions
show(*layers.nonzero(x, as_tuple=True))
#: layers.randint, layers.randn, layers.randperm
dice = layers.randint(1, 7, shape=[50], seed=3)
show(layers.reduce_min(dice) >= 1, layers.reduce_max(dice) <= 6)
print(layers.randn([2, 3]).shape)
show(layers.reduce_sum(layers.randperm(5)))  # 0 to 4 in some order
#: layers.array_length
words = layers.create_array("float32")
for position in range(3):
    layers.array_write(data([1.0]), layers.fill_constant([1], "int64", position), words)
show(layers.array_length(words))
#: layers.merge_selected_rows, layers.get_tensor_from_selected_rows
# the gradient of a sparse table holds the rows of the words of the batch, once for each
words = data([[1], [3], [1]])
table = fluid.embedding(words, [5, 2], is_sparse=True, param_attr=fluid.ParamAttr(name="table"))
fluid.backward.append_backward(layers.reduce_sum(table))
gradient = fluid.default_main_program().global_block().var("table@GRAD")
show(layers.get_tensor_from_selected_rows(gradient))
show(layers.get_tensor_from_selected_rows(layers.merge_selected_rows(gradient)))  # rows 1 and 3
#: layers.load
exe = fluid.Executor(fluid.CPUPlace())
with fluid.program_guard(fluid.Program(), fluid.Program()):
    kept = layers.create_global_var([2], 1.5, "float32", persistable=True, name="kept")
    exe.run(fluid.default_startup_program())
    fluid.io.save_vars(exe, ".", vars=[kept])
found = layers.create_tensor("float32")
layers.load(found, "kept")  # an operator: the file is read when the Program runs
show(found)
#: layers.tensor.save, layers.tensor.save_combine, layers.tensor.load_combine
exe = fluid.Executor(fluid.CPUPlace())
with fluid.program_guard(fluid.Program()):
    first, second = (layers.fill_constant([2], "float32", value) for value in (1.0, 2.0))
    layers.tensor.save(first, "first")
    layers.tensor.save_combine([first, second], "both")
    exe.run()
a, b, c = (layers.create_tensor("float32") for _ in range(3))
layers.load(a, "first")
layers.tensor.load_combine([b, c], "both")
show(a, b, c)
