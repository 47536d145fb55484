"""Saving, loading and feeding

Files are those of 1.8.5, in both directions.
"""
# ruff: noqa
#: setup
def network():
    """x and a layer over it, and an Executor that has initialised it."""
    x = fluid.data("x", [None, 2])
    y = layers.fc(x, 1, param_attr=fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(1.0)), bias_attr=False)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return x, y, exe


def weight():
    return np.array(fluid.global_scope().find_var("w").get_tensor()).ravel().tolist()


def forget():
    """Set the weight to zeros."""
    fluid.global_scope().find_var("w").get_tensor().set(np.zeros((2, 1), "float32"), fluid.CPUPlace())
#: io.save_params, io.load_params
x, y, exe = network()
fluid.io.save_params(exe, "params")
forget()
fluid.io.load_params(exe, "params")
print(weight())
#: io.save_persistables, io.load_persistables
x, y, exe = network()
fluid.io.save_persistables(exe, "all", filename="one_file")
forget()
fluid.io.load_persistables(exe, "all", filename="one_file")
print(weight())
#: io.save_vars, io.load_vars
x, y, exe = network()
fluid.io.save_vars(exe, "some", predicate=lambda var: var.name == "w")
forget()
fluid.io.load_vars(exe, "some", predicate=lambda var: var.name == "w")
print(weight())
#: io.save_inference_model, io.load_inference_model
x, y, exe = network()
fluid.io.save_inference_model("model", feeded_var_names=["x"], target_vars=[y], executor=exe)
program, feeds, fetches = fluid.io.load_inference_model("model", exe)
print(feeds, exe.run(program, feed={"x": np.array([[1, 2]], "float32")}, fetch_list=fetches)[0].tolist())
#: fluid.save, fluid.load
x, y, exe = network()
fluid.save(fluid.default_main_program(), "state")  # state.pdparams, state.pdopt, state.pdmodel
forget()
fluid.load(fluid.default_main_program(), "state", exe)
print(weight())
#: io.load_program_state, io.set_program_state
x, y, exe = network()
fluid.save(fluid.default_main_program(), "state")
state = fluid.io.load_program_state("state")
fluid.io.set_program_state(fluid.default_main_program(), {"w": state["w"] * 5})
print(sorted(state), weight())
#: io.is_parameter, io.is_persistable, io.get_program_parameter
x, y, exe = network()
w = fluid.default_main_program().global_block().var("w")
print(fluid.io.is_parameter(w), fluid.io.is_persistable(x))
print([p.name for p in fluid.io.get_program_parameter(fluid.default_main_program())])
#: fluid.DataFeeder
words = layers.data("words", [1], dtype="int64", lod_level=1)
label = layers.data("label", [1], dtype="int64")
feeder = fluid.DataFeeder(feed_list=[words, label], place=fluid.CPUPlace())
batch = feeder.feed([([1, 2], [0]), ([3], [1])])  # two samples
print(batch["words"].recursive_sequence_lengths(), np.array(batch["label"]).tolist())
#: io.PyReader
x = fluid.data("x", [None, 2])
y = layers.reduce_sum(x)
reader = fluid.io.PyReader(feed_list=[x], capacity=2, iterable=True)
reader.decorate_sample_list_generator(lambda: iter([[(np.ones(2),), (np.ones(2),)]]), places=fluid.CPUPlace())
exe = fluid.Executor(fluid.CPUPlace())
for batch in reader():
    print(exe.run(feed=batch, fetch_list=[y])[0].tolist())
#: layers.py_reader, layers.read_file
reader = layers.py_reader(capacity=2, shapes=[[-1, 2], [-1, 1]], dtypes=["float32", "int64"])
x, label = layers.read_file(reader)
total = layers.reduce_sum(x)
reader.decorate_tensor_provider(lambda: iter([[np.ones((3, 2), "float32"), np.zeros((3, 1), "int64")]]))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
reader.start()
try:
    while True:
        print(exe.run(fetch_list=[total])[0].tolist())
except fluid.core.EOFException:
    reader.reset()
    print("the end")
#: layers.create_py_reader_by_data
x = fluid.data("x", [None, 2])
reader = layers.create_py_reader_by_data(capacity=2, feed_list=[x])
x = layers.read_file(reader)
reader.decorate_batch_generator(lambda: iter([[np.full((1, 2), 4.0, "float32")]]))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
reader.start()
print(exe.run(fetch_list=[x])[0].tolist())
reader.reset()
#: fluid.DatasetFactory, dataset.DatasetFactory
with open("part-0", "w") as out:
    out.write("2 7 8 1 0.5\n1 9 1 1.5\n")  # for each slot the number of values, then the values
words = fluid.data("words", [None, 1], "int64", lod_level=1)
label = fluid.data("label", [None, 1])
total = layers.reduce_sum(label)
dataset = fluid.DatasetFactory().create_dataset("InMemoryDataset")
dataset.set_use_var([words, label])
dataset.set_batch_size(2)
dataset.set_filelist(["part-0"])
dataset.set_pipe_command("cat")
dataset.load_into_memory()
dataset.local_shuffle()
print(dataset.get_memory_data_size())
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
exe.train_from_dataset(fluid.default_main_program(), dataset)
#: fluid.DataFeedDesc
with open("data.proto", "w") as out:
    out.write('name: "MultiSlotDataFeed" batch_size: 2 multi_slot_desc { slots { name: "words" type: "uint64" is_dense: false is_used: false } }')
desc = fluid.DataFeedDesc("data.proto")
desc.set_batch_size(128)
desc.set_use_slots(["words"])
print("batch_size: 128" in desc.desc(), "is_used: true" in desc.desc())
