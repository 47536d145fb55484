"""Programs, Executors, places, scopes

A Program is built once and run many times.
"""
# ruff: noqa
#: setup
def one():
    return fluid.initializer.Constant(1.0)
#: fluid.Program, fluid.program_guard
main, startup = fluid.Program(), fluid.Program()
with fluid.program_guard(main, startup):
    x = fluid.data("x", [None, 2])
    y = layers.fc(x, 1, param_attr=one())
print([op.type for op in main.global_block().ops], [op.type for op in startup.global_block().ops])
test = main.clone(for_test=True)
print(len(test.all_parameters()), test.num_blocks)
#: fluid.default_main_program, fluid.default_startup_program
layers.fc(data([[1.0, 2.0]]), 1, bias_attr=False)
print(len(fluid.default_main_program().global_block().ops), len(fluid.default_startup_program().global_block().ops))
#: fluid.Executor
x = fluid.data("x", [None, 2])
y = layers.fc(x, 1, param_attr=one())
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
(value,) = exe.run(feed={"x": np.array([[1, 2], [3, 4]], "float32")}, fetch_list=[y])
print(value.tolist())
#: fluid.CPUPlace
exe = fluid.Executor(fluid.CPUPlace())
print(exe.place, exe.run(fetch_list=[layers.fill_constant([1], "float32", 2.0)])[0].tolist())
tensor = fluid.LoDTensor()
tensor.set(np.ones((2, 1), "float32"), fluid.CPUPlace())  # where a tensor's memory is
print(tensor.shape())
#: fluid.CUDAPlace, fluid.is_compiled_with_cuda, core.is_compiled_with_cuda
place = fluid.CUDAPlace(0) if fluid.core.is_compiled_with_cuda() else fluid.CPUPlace()
print(fluid.is_compiled_with_cuda() == isinstance(place, fluid.CUDAPlace))
#: fluid.cpu_places
print(len(fluid.cpu_places(2)))
#: fluid.cuda_places
places = fluid.cuda_places([0]) if fluid.is_compiled_with_cuda() else fluid.cpu_places(1)
print(len(places))
#: core.Place
place = fluid.core.Place()
place.set_place(fluid.CPUPlace())
print(place.is_cpu_place(), place.is_gpu_place())
#: fluid.Scope, fluid.scope_guard, fluid.global_scope
w = layers.create_parameter([1], "float32", name="w", default_initializer=one())
exe = fluid.Executor(fluid.CPUPlace())
mine = fluid.Scope()
with fluid.scope_guard(mine):
    exe.run(fluid.default_startup_program())
    print(fluid.global_scope() is mine, np.array(mine.find_var("w").get_tensor()).tolist())
print(fluid.global_scope().find_var("w"))
#: fluid.CompiledProgram, fluid.BuildStrategy, fluid.ExecutionStrategy
x = data([[1.0, 2.0], [3.0, 4.0]])
loss = layers.mean(layers.fc(x, 1, param_attr=one()))
fluid.optimizer.SGD(0.1).minimize(loss)
build, run = fluid.BuildStrategy(), fluid.ExecutionStrategy()
build.fuse_elewise_add_act_ops = True
run.num_threads = 1
compiled = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
    loss_name=loss.name, build_strategy=build, exec_strategy=run, places=fluid.cpu_places(1)
)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
print(exe.run(compiled, feed=feed, fetch_list=[loss])[0].tolist())
#: fluid.ParallelExecutor
x = data([[1.0, 2.0], [3.0, 4.0]])
loss = layers.mean(layers.fc(x, 1, param_attr=one()))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
parallel = fluid.ParallelExecutor(use_cuda=False, loss_name=loss.name)
print(np.mean(parallel.run(fetch_list=[loss.name], feed=feed)[0]).tolist())
#: fluid.name_scope
with fluid.name_scope("tower"):
    y = layers.relu(data([1.0]))
print(fluid.default_main_program().global_block().ops[-1].attr("op_namescope"))
#: unique_name.guard, unique_name.generate
with fluid.unique_name.guard():
    print(fluid.unique_name.generate("fc"), fluid.unique_name.generate("fc"))
with fluid.unique_name.guard("other_"):
    print(fluid.unique_name.generate("fc"))
#: fluid.Variable
x = fluid.data("x", [None, 3])
print(isinstance(x, fluid.Variable), x.name, x.shape, x.dtype, x.lod_level, x.stop_gradient)
print(x.to_string(True).splitlines()[0])
y = (x * 2.0 + 1.0) / x  # operators append operators
print([op.type for op in fluid.default_main_program().global_block().ops])
#: framework.Parameter
w = layers.create_parameter([2, 3], "float32", name="w")
print([p.name for p in fluid.default_main_program().all_parameters()], w.trainable, w.persistable, w.optimize_attr)
print(isinstance(w, fluid.framework.Parameter), isinstance(layers.relu(w), fluid.framework.Parameter))
#: fluid.in_dygraph_mode
print(fluid.in_dygraph_mode())
with fluid.dygraph.guard():
    print(fluid.in_dygraph_mode())
#: fluid.require_version
fluid.require_version("1.5.0", "1.9")
try:
    fluid.require_version("2.0")
except Exception as error:
    print("2.0" in str(error))
#: fluid.memory_optimize
layers.relu(data([1.0]))
print(fluid.memory_optimize(fluid.default_main_program()))  # values are freed as they die
#: fluid.load_op_library
try:
    fluid.load_op_library("my_op.so")
except Exception as error:
    print("my_op.so" in str(error))
#: core.Graph, framework.IrGraph
layers.relu(layers.fc(data([[1.0]]), 1, bias_attr=False))
graph = fluid.framework.IrGraph(fluid.core.Graph(fluid.default_main_program().desc))
print([node.name() for node in graph.topology_sort()])
print(sorted(node.name() for node in graph.all_persistable_nodes()))
print([op.type for op in graph.to_program().global_block().ops])
#: core.ParallelStrategy
strategy = fluid.core.ParallelStrategy()
print(strategy.nranks, strategy.local_rank)
#: core.size_of_dtype
print(fluid.core.size_of_dtype(fluid.core.VarDesc.VarType.FP64))
