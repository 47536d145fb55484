"""fluid.layers: sequences

A batch of sequences is their rows one after another, and the lengths. `data(value, lengths=[[2, 1]])` makes two sequences, of
two rows and of one.
"""
# ruff: noqa
#: setup
def words():
    return data([[1.0], [2.0], [30.0]], lengths=[[2, 1]])
#: fluid.create_lod_tensor
tensor = fluid.create_lod_tensor(np.array([[1.0], [2.0], [3.0]]), [[2, 1]], fluid.CPUPlace())
print(tensor.recursive_sequence_lengths(), tensor.lod())
#: fluid.create_random_int_lodtensor
tensor = fluid.create_random_int_lodtensor([[2, 1]], base_shape=[1], place=fluid.CPUPlace(), low=5, high=6)
print(np.array(tensor).shape, tensor.recursive_sequence_lengths(), np.array(tensor).min() >= 5)
#: fluid.LoDTensor, fluid.Tensor
tensor = fluid.LoDTensor()
tensor.set(np.array([[1.0], [2.0], [3.0]], "float32"), fluid.CPUPlace())
tensor.set_lod([[0, 2, 3]])  # offsets
print(tensor.shape(), tensor.recursive_sequence_lengths(), tensor.has_valid_recursive_sequence_lengths())
#: layers.sequence_pool
x = words()
for kind in ("sum", "average", "max", "last"):
    show(layers.sequence_pool(x, kind))
#: layers.sequence_first_step
show(layers.sequence_first_step(words()))
#: layers.sequence_last_step
show(layers.sequence_last_step(words()))
#: layers.sequence_softmax
x = data([0.0, 1.0986123, 5.0], lengths=[[2, 1]])
show(layers.sequence_softmax(x))
#: layers.sequence_expand
x = data([[1.0], [2.0]])
y = data([[0.0], [0.0], [0.0]], lengths=[[2, 1]])
show(layers.sequence_expand(x, y, ref_level=0))
#: layers.sequence_expand_as
x = data([[1.0], [2.0]])
show(layers.sequence_expand_as(x, words()))
#: layers.sequence_reshape
x = data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], lengths=[[2, 1]])
show(layers.sequence_reshape(x, new_dim=1))
#: layers.sequence_reverse
show(layers.sequence_reverse(words()))
#: layers.sequence_conv
one = fluid.initializer.Constant(1.0)
show(layers.sequence_conv(words(), num_filters=1, filter_size=3, param_attr=one, bias_attr=False))  # sums of neighbours
#: layers.sequence_pad
padded, lengths = layers.sequence_pad(words(), pad_value=layers.fill_constant([1], "float32", 0.0))
show(padded, lengths)
#: layers.sequence_unpad
x = data([[[1.0], [2.0]], [[30.0], [0.0]]])
show(layers.sequence_unpad(x, length=data([2, 1])))
#: layers.sequence_mask
show(layers.sequence_mask(data([2, 1, 3]), maxlen=4))
#: layers.lod_reset
x = data([[1.0], [2.0], [3.0]])
show(layers.lod_reset(x, target_lod=[0, 1, 3]))  # offsets
#: layers.gather_tree
ids = data([[[2, 2]], [[3, 4]]])  # [steps, batch, beams]
parents = data([[[0, 0]], [[1, 0]]])
show(layers.gather_tree(ids, parents))
#: layers.sequence_concat
show(layers.sequence_concat([words(), words()]))
#: layers.sequence_enumerate
show(layers.sequence_enumerate(data([[1], [2], [3]], lengths=[[2, 1]]), win_size=2, pad_value=0))
#: layers.sequence_slice
x = data([[1.0], [2.0], [3.0]], lengths=[[3]])
show(layers.sequence_slice(x, offset=data([[1]]), length=data([[2]])))
#: layers.sequence_scatter
x = data(np.ones((2, 3)))
show(layers.sequence_scatter(x, data([[0], [2], [1]], lengths=[[2, 1]]), data([[10.0], [20.0], [30.0]], lengths=[[2, 1]])))
#: layers.row_conv
attr = fluid.initializer.Constant(1.0)
show(layers.row_conv(words(), future_context_size=1, param_attr=attr))  # this row and the next
#: layers.lod_append
show(layers.lod_append(words(), level=[0, 1, 2, 3]))  # offsets of a finer level
#: layers.edit_distance
distance, count = layers.edit_distance(data([[1], [2], [3]], lengths=[[3]]), data([[1], [3]], lengths=[[2]]), normalized=False)
show(distance, count)
#: layers.lod_tensor_to_array, layers.lod_rank_table, layers.array_to_lod_tensor, layers.max_sequence_len
x = words()
table = layers.control_flow.lod_rank_table(x)
steps = layers.control_flow.lod_tensor_to_array(x, table)  # the first rows, then the second
show(layers.control_flow.max_sequence_len(table), layers.control_flow.array_to_lod_tensor(steps, table))
#: layers.reorder_lod_tensor_by_rank
x = data([[1.0], [2.0], [30.0]], lengths=[[1, 2]])
show(layers.reorder_lod_tensor_by_rank(x, layers.control_flow.lod_rank_table(x)))
