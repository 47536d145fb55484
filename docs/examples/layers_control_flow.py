"""fluid.layers: control flow and arrays

Loops and branches that stand in the Program, and arrays of tensors that they fill.
"""
# ruff: noqa
#: layers.While
i = layers.fill_constant([1], "int64", 0)
end = layers.fill_constant([1], "int64", 4)
total = layers.fill_constant([1], "int64", 0)
more = layers.less_than(i, end)
loop = layers.While(more)
with loop.block():
    layers.increment(i, value=1)
    layers.assign(total + i, total)
    layers.less_than(i, end, cond=more)
show(total)  # 1 + 2 + 3 + 4
#: layers.while_loop
i, total = layers.fill_constant([1], "int64", 0), layers.fill_constant([1], "int64", 0)
i, total = layers.while_loop(lambda i, total: i < 4, lambda i, total: [i + 1, total + i], [i, total])
show(i, total)
#: layers.case
x = layers.fill_constant([1], "float32", 0.3)
small, large = (lambda: layers.fill_constant([1], "int64", 1)), (lambda: layers.fill_constant([1], "int64", 2))
show(layers.case([(x < 0.1, small), (x < 0.5, large)], default=small))
#: layers.Switch
step = layers.fill_constant([1], "float32", 7.0)
rate = layers.create_global_var([1], value=0.0, dtype="float32", persistable=True)
with layers.Switch() as switch:
    with switch.case(step < 5.0):
        layers.assign(layers.fill_constant([1], "float32", 0.1), rate)
    with switch.default():
        layers.assign(layers.fill_constant([1], "float32", 0.01), rate)
show(rate)
#: layers.IfElse
x = data([[1.0], [-2.0], [3.0]])
branches = layers.IfElse(x > 0.0)
with branches.true_block():  # rows where it holds
    branches.output(branches.input(x) * 10.0)
with branches.false_block():
    branches.output(branches.input(x) * -1.0)
show(branches()[0])
#: layers.StaticRNN
x = data([[[1.0]], [[2.0]], [[3.0]]])  # [steps, batch, width]
rnn = layers.StaticRNN()
with rnn.step():
    now = rnn.step_input(x)
    before = rnn.memory(shape=[-1, 1], batch_ref=now, init_value=0.0)
    total = layers.elementwise_add(now, before)
    rnn.update_memory(before, total)
    rnn.step_output(total)
show(rnn())
#: layers.DynamicRNN
x = data([[1.0], [2.0], [30.0]], lengths=[[2, 1]])
rnn = layers.DynamicRNN()
with rnn.block():
    now = rnn.step_input(x)
    before = rnn.memory(shape=[1], value=0.0)
    total = layers.elementwise_add(now, before)
    rnn.update_memory(before, total)
    rnn.output(total)
show(rnn())
#: layers.create_array, layers.array_write, layers.array_read
array = layers.create_array("float32")
zero, one = layers.fill_constant([1], "int64", 0), layers.fill_constant([1], "int64", 1)
layers.array_write(data([1.0]), zero, array)
layers.array_write(data([2.0, 3.0]), one, array)
show(layers.array_read(array, one), layers.array_length(array))
#: layers.device.get_places
places = layers.device.get_places(device_count=1, device_type="CPU")
print(places.name)
#: layers.utils.flatten
print(layers.utils.flatten({"a": [1, 2], "b": (3,)}))
#: layers.utils.map_structure
print(layers.utils.map_structure(lambda x: x * 10, {"a": [1, 2], "b": 3}))
#: layers.utils.convert_to_list
print(layers.utils.convert_to_list(3, 2, "stride"), layers.utils.convert_to_list([1, 2], 2, "stride"))
#: layers.cond
x = layers.fill_constant([1], "float32", 3.0)
show(layers.cond(x > 2.0, lambda: x * 10.0, lambda: x))
#: layers.switch_case
index = layers.fill_constant([1], "int32", 1)
one, two = (lambda: layers.fill_constant([1], "int64", 1)), (lambda: layers.fill_constant([1], "int64", 2))
show(layers.switch_case(index, {0: one, 1: two}))
#: layers.control_flow.ConditionalBlock
total = layers.fill_constant([1], "float32", 0.0)
flag = data([True], dtype="bool")
once = layers.control_flow.ConditionalBlock([flag], is_scalar_condition=True)
with once.block():
    layers.assign(layers.fill_constant([1], "float32", 5.0), total)
show(total)
#: layers.control_flow.split_lod_tensor, layers.control_flow.merge_lod_tensor
x = data([[1.0], [2.0], [3.0]])
mask = data([[True], [False], [True]], dtype="bool")
yes, no = layers.control_flow.split_lod_tensor(x, mask)
show(yes, no)
show(layers.control_flow.merge_lod_tensor(yes * 10.0, no, x, mask))
#: layers.control_flow.select_input
mask = data([1], dtype="int32")
show(layers.control_flow.select_input([data([1.0]), data([2.0])], mask))
#: layers.control_flow.shrink_memory
# as DynamicRNN does: sequences are sorted, longest first, and those that have ended leave the batch
x = data([[1.0], [2.0], [3.0]], lengths=[[1, 2]])
table = layers.control_flow.lod_rank_table(x)
state = data([[10.0], [20.0]])
show(layers.control_flow.shrink_memory(state, layers.fill_constant([1], "int64", 0), table))
show(layers.control_flow.shrink_memory(state, layers.fill_constant([1], "int64", 1), table))
#: layers.control_flow.BlockGuard
program = fluid.default_main_program()
with layers.control_flow.BlockGuard(program):  # what is appended here is of a Block inside the current one
    layers.fill_constant([1], "float32", 1.0)
    print(program.current_block().idx, program.current_block().parent_idx)
print(program.num_blocks, program.current_block().idx)
#: layers.select_output
x = data([1.0, 2.0])
block = fluid.default_main_program().current_block()
ways = [block.create_var(name="way%d" % k, dtype="float32", shape=[2]) for k in range(2)]
layers.select_output(x, ways, layers.fill_constant([1], "int32", 1))
show(ways[1])
