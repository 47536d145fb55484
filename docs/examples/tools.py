"""Looking at Programs, and smaller tools

What lies below the modules that programs usually import.
"""
# ruff: noqa
#: debugger.pprint_program_codes, debugger.pprint_block_codes, debugger.repr_op, debugger.repr_var, debugger.repr_attr, debugger.repr_data_type
import millstream.fluid.debugger

layers.scale(fluid.data("x", [None, 2]), scale=0.5)
program = fluid.default_main_program()
fluid.debugger.pprint_program_codes(program)
fluid.debugger.pprint_block_codes(program.global_block())
print(fluid.debugger.repr_op(program.global_block().ops[0]))
print(fluid.debugger.repr_var(program.global_block().var("x")))
print(fluid.debugger.repr_attr(("axis", 1)), fluid.debugger.repr_data_type(fluid.core.VarDesc.VarType.FP32))
#: debugger.draw_block_graphviz
import millstream.fluid.debugger

layers.relu(fluid.data("x", [None, 2]))
fluid.debugger.draw_block_graphviz(fluid.default_main_program().global_block(), path="block.dot")
print("relu" in open("block.dot").read())
#: debugger.prepare_fast_nan_inf_debug, debugger.run_fast_nan_inf_debug
import millstream.fluid.debugger

x = data([[0.0]])
y = layers.log(x)
program = fluid.default_main_program()
fluid.debugger.prepare_fast_nan_inf_debug(program)
try:
    fluid.debugger.run_fast_nan_inf_debug(fluid.Executor(fluid.CPUPlace()), program, feed=feed, fetch_list=[y])
except Exception as error:
    print("log" in str(error))
#: framework.Block, framework.Operator, core.VarDesc, core.VarDesc.VarType, core.AttrType
y = layers.scale(fluid.data("x", [None, 2]), scale=0.5)
block = fluid.default_main_program().global_block()
print(isinstance(block, fluid.framework.Block), block.idx, sorted(block.vars))
op = block.ops[0]
print(isinstance(op, fluid.framework.Operator), op.type, op.input("X"), op.output("Out"), op.attr("scale"))
print(y.dtype == fluid.core.VarDesc.VarType.FP32, block.ops[0].attr_type("scale") == fluid.core.AttrType.FLOAT)
print(y.desc.name() == y.name)
#: framework.convert_np_dtype_to_dtype_, framework.dtype_is_floating, framework.grad_var_name
kind = fluid.framework.convert_np_dtype_to_dtype_("float64")
print(kind == fluid.core.VarDesc.VarType.FP64, fluid.framework.dtype_is_floating(kind), fluid.framework.grad_var_name("w"))
#: framework.switch_main_program, framework.switch_startup_program
mine = fluid.Program()
before = fluid.framework.switch_main_program(mine), fluid.framework.switch_startup_program(fluid.Program())
print(fluid.default_main_program() is mine)
fluid.framework.switch_main_program(before[0])
fluid.framework.switch_startup_program(before[1])
#: fluid.device_guard, framework.switch_device
with fluid.device_guard("cpu"):  # kept on the operators made in it
    y = layers.relu(fluid.data("x", [None, 2]))
print(y.op.attr("op_device"))
before = fluid.framework.switch_device("cpu")
fluid.framework.switch_device(before)
#: fluid.set_flags, fluid.get_flags
fluid.set_flags({"FLAGS_check_nan_inf": True})
print(fluid.get_flags("FLAGS_check_nan_inf"))
fluid.set_flags({"FLAGS_check_nan_inf": False})
#: unique_name.UniqueNameGenerator, unique_name.switch
before = fluid.unique_name.switch(fluid.unique_name.UniqueNameGenerator("mine_"))
print(fluid.unique_name.generate("fc"), fluid.unique_name.generate("fc"))
fluid.unique_name.switch(before)
#: default_scope_funcs.var, default_scope_funcs.find_var, default_scope_funcs.get_cur_scope, default_scope_funcs.enter_local_scope, default_scope_funcs.leave_local_scope, default_scope_funcs.scoped_function
from millstream.fluid import default_scope_funcs

default_scope_funcs.var("kept").set_int(3)
default_scope_funcs.enter_local_scope()
default_scope_funcs.var("inside").set_int(4)
print(default_scope_funcs.find_var("kept").get_int(), default_scope_funcs.get_cur_scope().find_var("inside").get_int())
default_scope_funcs.leave_local_scope()
print(default_scope_funcs.find_var("inside"))
default_scope_funcs.scoped_function(lambda: print(default_scope_funcs.find_var("kept").get_int()))
#: layers.utils.is_sequence, layers.utils.pack_sequence_as, layers.utils.assert_same_structure
print(layers.utils.is_sequence([1]), layers.utils.is_sequence("word"))
print(layers.utils.pack_sequence_as([0, [0, 0]], [1, 2, 3]))
layers.utils.assert_same_structure([1, [2]], [3, [4]])
#: data_feeder.convert_dtype, data_feeder.check_type, data_feeder.check_dtype, data_feeder.check_variable_and_dtype
print(fluid.data_feeder.convert_dtype(fluid.core.VarDesc.VarType.INT64))
x = fluid.data("x", [None, 2])
fluid.data_feeder.check_variable_and_dtype(x, "x", ["float32"], "my_layer")
for check in (
    lambda: fluid.data_feeder.check_type(3, "size", str, "my_layer"),
    lambda: fluid.data_feeder.check_dtype(x.dtype, "x", ["int64"], "my_layer"),
):
    try:
        check()
    except TypeError as error:
        print("my_layer" in str(error))
#: backward.calc_gradient
x = data([[1.0, 2.0]])
x.stop_gradient = False
show(fluid.backward.calc_gradient(layers.reduce_sum(x * x), x))
#: core.EOFException, core.EnforceNotMet
reader = layers.py_reader(2, shapes=[[-1, 1]], dtypes=["float32"], use_double_buffer=False)
x = layers.read_file(reader)
reader.decorate_paddle_reader(lambda: iter([[(np.ones(1, "float32"),)]]))  # one batch
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
reader.start()
try:
    while True:
        print(exe.run(fetch_list=[x])[0].tolist())
except fluid.core.EOFException:
    reader.reset()
try:  # what an operator demands does not hold
    exe.run(fluid.Program(), fetch_list=["nothing"])
except fluid.core.EnforceNotMet as error:
    print(isinstance(error, RuntimeError), "nothing" in str(error))
#: core.SelectedRows, core.Variable
rows = fluid.core.SelectedRows([2, 5], 10)  # two rows of a table of ten
print(rows.rows(), rows.height())
kept = fluid.global_scope().var("kept")
print(isinstance(kept, fluid.core.Variable), kept.get_tensor()._is_initialized())
kept.get_tensor().set(np.ones((2, 3), "float32"), fluid.CPUPlace())
print(fluid.global_scope().find_var("kept").get_tensor().shape())
#: fluid.LoDTensorArray
array = fluid.LoDTensorArray()
array.append(fluid.create_lod_tensor(np.ones((2, 1), "float32"), [[2]], fluid.CPUPlace()))
print(len(array), array[0].recursive_sequence_lengths())
#: fluid.WeightNormParamAttr
x = data([[1.0, 2.0]])
show(layers.fc(x, 1, param_attr=fluid.WeightNormParamAttr(dim=None, initializer=fluid.initializer.Constant(2.0)), bias_attr=False))
#: metrics.MetricBase
class Count(fluid.metrics.MetricBase):
    def __init__(self):
        super(Count, self).__init__("count")
        self.seen = 0

    def update(self, batch):
        self.seen += len(batch)

    def eval(self):
        return self.seen


count = Count()
count.update([1, 2, 3])
print(count.eval())
count.reset()
print(count.eval())
#: initializer.Initializer, regularizer.WeightDecayRegularizer, clip.GradientClipBase, clip.BaseErrorClipAttr
class Steps(fluid.initializer.Initializer):
    """0, 1, 2, …"""

    def __call__(self, var, block):
        values = np.arange(np.prod(var.shape), dtype="float32").reshape(var.shape)
        return fluid.initializer.NumpyArrayInitializer(values)(var, block)


class Pull(fluid.regularizer.WeightDecayRegularizer):
    """Towards 1: the decay is w - 1."""

    def __call__(self, param, grad, block):
        return layers.scale(param, bias=-1.0)


class Signs(fluid.clip.GradientClipBase):
    """Every gradient becomes its sign."""

    def _static_clip(self, params_grads):
        return [(p, layers.sign(g)) for p, g in params_grads]


class Halved(fluid.clip.BaseErrorClipAttr):
    """Of a value's gradient, on its way back."""

    def _append_clip_op(self, block, grad_name):
        block.append_op("scale", {"X": grad_name}, {"Out": grad_name}, {"scale": 0.5})


x = data([[1.0, 2.0]])
y = layers.fc(x, 1, param_attr=fluid.ParamAttr("w", initializer=Steps()), bias_attr=False)
y._set_error_clip(Halved())
fluid.optimizer.SGD(0.5, regularization=Pull(), grad_clip=Signs()).minimize(layers.reduce_sum(y))
show(y, y.name + "@GRAD")
show(fluid.default_main_program().global_block().var("w"))
#: regularizer.append_regularization_ops
x = data([[1.0]])
weight = fluid.ParamAttr(initializer=fluid.initializer.Constant(2.0))
pairs = fluid.backward.append_backward(layers.reduce_sum(layers.fc(x, 1, param_attr=weight, bias_attr=False)))
(parameter, gradient), = fluid.regularizer.append_regularization_ops(pairs, fluid.regularizer.L2Decay(0.5))
show(gradient)  # 1 + 0.5 * 2
#: io.get_parameter_value, io.get_parameter_value_by_name, io.is_belong_to_optimizer, io.get_program_persistable_vars
y = layers.fc(fluid.data("x", [None, 1]), 1, param_attr=fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(2.0)), bias_attr=False)
fluid.optimizer.Momentum(0.1, 0.9).minimize(layers.mean(y))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
program = fluid.default_main_program()
print(fluid.io.get_parameter_value(program.global_block().var("w"), exe).tolist())
print(fluid.io.get_parameter_value_by_name("w", exe, program).tolist())
kept = fluid.io.get_program_persistable_vars(program)
print(sorted(var.name for var in kept if fluid.io.is_belong_to_optimizer(var)))
#: io.prepend_feed_ops, io.append_fetch_ops
y = layers.relu(fluid.data("x", [None, 2]))
program = fluid.default_main_program()
fluid.io.prepend_feed_ops(program, ["x"])  # as saved models have them
fluid.io.append_fetch_ops(program, [y.name])
print([op.type for op in program.global_block().ops])
#: io.DataLoader, reader.keep_data_loader_order
x = fluid.data("x", [None, 2])
loader = fluid.io.DataLoader.from_generator(feed_list=[x], capacity=2, iterable=True)
loader.set_sample_generator(lambda: iter([(np.ones(2, "float32"),)] * 3), batch_size=2, drop_last=False, places=fluid.CPUPlace())
print([np.array(batch[0]["x"]).shape for batch in loader()])
fluid.reader.keep_data_loader_order(True)  # which is the default
#: dataloader.Dataset, dataloader.BatchSampler
class Squares(fluid.dataloader.Dataset):
    def __getitem__(self, index):
        return np.array([index * index], "float32")

    def __len__(self):
        return 5


print([list(batch) for batch in fluid.dataloader.BatchSampler(Squares(), batch_size=2)])
#: incubate.data_generator.DataGenerator, incubate.data_generator.MultiSlotDataGenerator, incubate.data_generator.MultiSlotStringDataGenerator
import millstream.fluid.incubate.data_generator as generators


class Words(generators.MultiSlotDataGenerator):
    """Lines of words become lines for InMemoryDataset: for each slot the number of values and the values."""

    def generate_sample(self, line):
        yield [("words", [int(word) for word in line.split()]), ("label", [1])]


print(Words()._gen_str([("words", [7, 8]), ("label", [1])]), end="")
print(generators.MultiSlotStringDataGenerator()._gen_str([("words", ["7", "8"])]), end="")
print(issubclass(Words, generators.DataGenerator))
#: optimizer.Dpsgd, optimizer.DpsgdOptimizer
print(fluid.optimizer.Dpsgd is fluid.optimizer.DpsgdOptimizer)
x = data([[1.0]])
y = layers.fc(x, 1, param_attr=fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(2.0)), bias_attr=False)
fluid.optimizer.Dpsgd(learning_rate=0.5, clip=10.0, batch_size=1.0, sigma=0.0).minimize(layers.reduce_sum(y))
show(y)
show(fluid.default_main_program().global_block().var("w"))  # clipped gradients, and noise when sigma is not 0
#: fluid.release_memory, fluid.monkey_patch_variable
fluid.release_memory(fluid.default_main_program())  # values are freed as they die without it
fluid.monkey_patch_variable()  # done when fluid is imported
show(data([1.0]) + 1.0)
#: transpiler.RoundRobin, transpiler.HashName, transpiler.ps_dispatcher.PSDispatcher
turns = fluid.transpiler.RoundRobin(["a:6000", "b:6000"])
print(turns.dispatch([None, None, None]), isinstance(turns, fluid.transpiler.ps_dispatcher.PSDispatcher), turns.eps)
by_name = fluid.transpiler.HashName(["a:6000", "b:6000"])
x = fluid.data("x", [None, 2])
print(by_name.dispatch([x.desc]) == by_name.dispatch([x.desc]))
#: fluid.DistributeTranspilerConfig
config = fluid.DistributeTranspilerConfig()
print(config.mode, config.sync_mode, config.min_block_size)
#: core.AnalysisPredictor, core.PaddlePredictor, core.PaddleDType, core.PaddleBuf, core.ZeroCopyTensor, core.AnalysisConfig.Precision
y = layers.scale(fluid.data("x", [None, 2]), scale=2.0)
exe = fluid.Executor(fluid.CPUPlace())
fluid.io.save_inference_model("model", ["x"], [y], exe)
config = fluid.core.AnalysisConfig("model")
config.disable_gpu()
config.switch_use_feed_fetch_ops(False)
predictor = fluid.core.create_paddle_predictor(config)
print(predictor.get_input_names(), isinstance(predictor, fluid.core.AnalysisPredictor), isinstance(predictor, fluid.core.PaddlePredictor))
x = predictor.get_input_tensor("x")
x.copy_from_cpu(np.array([[1.0, 2.0]], "float32"))
predictor.zero_copy_run()
out = predictor.get_output_tensor(predictor.get_output_names()[0])
print(out.copy_to_cpu().tolist(), isinstance(out, fluid.core.ZeroCopyTensor), out.type() == fluid.core.PaddleDType.FLOAT32)
print(fluid.core.PaddleBuf([1.0, 2.0]).float_data(), fluid.core.AnalysisConfig.Precision.Half)
#: core.paddle_dtype_size, core.paddle_tensor_to_bytes
tensor = fluid.core.PaddleTensor(np.ones((1, 2), "float32"))
print(fluid.core.paddle_dtype_size(fluid.core.PaddleDType.INT64), len(fluid.core.paddle_tensor_to_bytes(tensor)) > 8)
#: core.VarBase
with fluid.dygraph.guard():
    x = fluid.dygraph.to_variable(np.ones(2, "float32"))
    print(isinstance(x, fluid.core.VarBase), x.shape, x.numpy().tolist())
    x.stop_gradient = False
    layers.reduce_sum(x * x).backward()
    print(x.gradient().tolist())
#: BuildStrategy.ReduceStrategy, BuildStrategy.GradientScaleStrategy
strategy = fluid.BuildStrategy()
strategy.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
strategy.gradient_scale_strategy = fluid.BuildStrategy.GradientScaleStrategy.CoeffNumDevice
print(strategy.reduce_strategy == fluid.BuildStrategy.ReduceStrategy.Reduce)
#: reader.DataLoaderBase, reader.GeneratorLoader, reader.DygraphGeneratorLoader
x = fluid.data("x", [None, 2])
loader = fluid.io.DataLoader.from_generator(feed_list=[x], capacity=2)
loader.set_batch_generator(lambda: iter([np.ones((3, 2), "float32")]), places=fluid.CPUPlace())
print(isinstance(loader, fluid.reader.GeneratorLoader), isinstance(loader, fluid.reader.DataLoaderBase))
print([np.array(batch[0][x.name]).shape for batch in loader()])
with fluid.dygraph.guard():
    loader = fluid.io.DataLoader.from_generator(capacity=2, return_list=True)
    loader.set_batch_generator(lambda: iter([np.ones((3, 2), "float32")]), places=fluid.CPUPlace())
    print(isinstance(loader, fluid.reader.DygraphGeneratorLoader), [batch[0].shape for batch in loader()])
#: dataset.DatasetBase, dataset.InMemoryDataset, dataset.QueueDataset, dataset.FileInstantDataset
factory = fluid.DatasetFactory()
for name in ("InMemoryDataset", "QueueDataset", "FileInstantDataset"):
    made = factory.create_dataset(name)
    print(type(made).__name__, isinstance(made, getattr(fluid.dataset, name)), isinstance(made, fluid.dataset.DatasetBase))
    made.set_batch_size(4)
    made.set_use_var([fluid.data(name, [None, 1], "int64", lod_level=1)])
    print(made.desc().split("batch_size: ")[1].split()[0], name in made.desc())
#: data_feeder.DataToLoDTensorConverter
converter = fluid.data_feeder.DataToLoDTensorConverter(fluid.CPUPlace(), 1, [-1, 1], "int64")
for sentence in ([1, 2], [3]):
    converter.feed([[word] for word in sentence])
print(converter.done().recursive_sequence_lengths())
#: io.TensorDataset, io.SequenceSampler, io.RandomSampler, io.Sampler, io.IterableDataset, io.get_worker_info
dataset = fluid.io.TensorDataset([np.arange(3.0), np.arange(3)])
print([int(number) for number in dataset[1]], list(fluid.io.SequenceSampler(dataset)))
print(sorted(fluid.io.RandomSampler(dataset)), issubclass(fluid.io.RandomSampler, fluid.io.Sampler))
print(fluid.io.get_worker_info(), issubclass(fluid.io.IterableDataset, fluid.io.Dataset))  # no worker here
#: initializer.init_on_cpu, initializer.force_init_on_cpu
with fluid.initializer.init_on_cpu():  # of 1.1
    print(fluid.initializer.force_init_on_cpu())
print(fluid.initializer.force_init_on_cpu())
#: optimizer.Optimizer
print(issubclass(fluid.optimizer.SGD, fluid.optimizer.Optimizer), fluid.optimizer.Optimizer.__name__)
#: data_feeder.BatchedTensorProvider
x, y = fluid.data("x", [None, 2]), fluid.data("y", [None, 1], "int64")
samples = lambda: (([i, i + 1.0], [i]) for i in range(3))
provider = fluid.data_feeder.BatchedTensorProvider([x, y], fluid.CPUPlace(), batch_size=2, generator=samples, drop_last=False)
for pixels, labels in provider():
    print(np.array(pixels).tolist(), np.array(labels).tolist())
#: backward.ProgramStats
h = layers.relu(data([[1.0]]))
layers.mean(layers.tanh(h))
block = fluid.default_main_program().global_block()
stats = fluid.backward.ProgramStats(block, block.ops)
stats.build_stats()
print(stats.writers(h.name), stats.readers(h.name), stats.is_subgraph([h.name], ["mean_0.tmp_0"]))
#: backward.serialize_op_decs
layers.relu(data([[1.0]]))
print(fluid.backward.serialize_op_decs(fluid.default_main_program().global_block().ops[0].desc).splitlines()[:4])
#: io.get_inference_program
x = fluid.data("x", [None, 2])
y = layers.fc(x, 1)
loss = layers.mean(layers.square(layers.dropout(y, 0.5)))
fluid.optimizer.SGD(0.1).minimize(loss)
print([op.type for op in fluid.io.get_inference_program([y]).global_block().ops])
#: op.Operator
scope = fluid.core.Scope()
scope.var("x").get_tensor().set(np.array([1.0, 2.0], "float32"), fluid.CPUPlace())
operator = fluid.op.Operator("scale", X="x", Out="y", scale=3.0)  # outside of any Program
operator.run(scope, fluid.CPUPlace())
print(operator, np.array(scope.find_var("y").get_tensor()).tolist())
#: core.ProgramDesc
desc = fluid.core.ProgramDesc()
op = desc.block(0).append_op()
op.set_type("relu")
op.set_input("X", ["x"])
op.set_output("Out", ["y"])
for name in (b"x", b"y"):
    desc.block(0).var(name).set_shape([2])
op.infer_shape(desc.block(0))
program = fluid.Program.parse_from_string(desc.serialize_to_string())
print(fluid.Executor(fluid.CPUPlace()).run(program, feed={"x": np.array([-1.0, 2.0], "float32")}, fetch_list=["y"])[0].tolist())
#: graphviz.Graph
graph = fluid.graphviz.Graph("net", rankdir="TB")
graph.edge(graph.node("x", "arg"), graph.node("relu", "op", shape="box"))
print(graph.code().splitlines()[0], len(graph.edges))
#: annotations.deprecated
@fluid.annotations.deprecated(since="1.8", instead="newer")
def older(x):
    """Doubles."""
    return 2 * x

print(older(2), older.__doc__.splitlines()[-1].strip())
#: layers.layer_function_generator.generate_layer_fn
from millstream.fluid.layers.layer_function_generator import generate_layer_fn

show(generate_layer_fn("elementwise_mul")(x=data([2.0]), y=data([3.0]), axis=-1))
#: executor.as_numpy, executor.FetchHandler
tensor = fluid.LoDTensor()
tensor.set(np.array([1.0], "float32"), fluid.CPUPlace())
print(fluid.executor.as_numpy([tensor, tensor]))

class Watch(fluid.executor.FetchHandler):
    """Called every period_secs seconds while Executor.train_from_dataset(fetch_handler=…) runs."""

    def handler(self, res_dict):
        print(res_dict)

print(Watch({"loss": data([1.0])}, period_secs=10).period_secs)
#: distribute_lookup_table.find_distributed_lookup_table
layers.embedding(data([[1]]), [10, 3], is_sparse=True, is_distributed=True, param_attr="table")
print(fluid.distribute_lookup_table.find_distributed_lookup_table(fluid.default_main_program()))
