"""fluid.dygraph: Programs from eager code

A function or a Layer becomes a Program: to run faster, or to be saved for inference.
"""
# ruff: noqa
#: setup
one = fluid.initializer.Constant(1.0)
variable = fluid.dygraph.to_variable
#: dygraph.declarative, dygraph.dygraph_to_static_func
@fluid.dygraph.declarative
def relu(x):
    if layers.mean(x) > 0:  # of a Variable: becomes an operator
        y = x
    else:
        y = x * 0.5
    return y


with fluid.dygraph.guard():
    print(relu(variable(np.array([1.0, 2.0], "float32"))).numpy().tolist())
    print(relu(variable(np.array([-1.0, -2.0], "float32"))).numpy().tolist())


@fluid.dygraph.dygraph_to_static_func
def double(x):
    if layers.mean(x) > 0:
        y = x * 2.0
    else:
        y = x
    return y


show(double(data([1.0, 2.0])))  # the same, but into the current Program
#: dygraph.ProgramTranslator
def double(x):
    return x * 2.0


translator = fluid.dygraph.ProgramTranslator()  # there is one
with fluid.dygraph.guard():
    print(translator.get_output(double, variable(np.array([3.0], "float32"))).numpy().tolist())
translator.enable(False)  # declarative functions run as they are written
with fluid.dygraph.guard():
    print(fluid.dygraph.declarative(double)(variable(np.array([3.0], "float32"))).numpy().tolist())
translator.enable(True)
print(translator is fluid.dygraph.ProgramTranslator())
#: dygraph.TracedLayer
with fluid.dygraph.guard():
    layer = fluid.dygraph.Linear(2, 1, param_attr=one)
    x = variable(np.array([[1.0, 2.0]], "float32"))
    out, traced = fluid.dygraph.TracedLayer.trace(layer, [x])
    traced.save_inference_model("model")
    print(np.array(traced([x])[0]).tolist())
exe = fluid.Executor(fluid.CPUPlace())
program, feeds, fetches = fluid.io.load_inference_model("model", exe)
print(exe.run(program, feed={feeds[0]: np.array([[3.0, 4.0]], "float32")}, fetch_list=fetches)[0].tolist())
#: dygraph.static_runner.StaticModelRunner
x = fluid.data("x", [None, 2])
y = layers.fc(x, 1, param_attr=one, bias_attr=False)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
fluid.io.save_inference_model("model", ["x"], [y], exe)
with fluid.dygraph.guard():
    model = fluid.dygraph.static_runner.StaticModelRunner("model")  # a Layer that can be trained on
    print(model(variable(np.array([[3.0, 4.0]], "float32"))).numpy().tolist(), len(model.parameters()))
#: dygraph.dygraph_to_static.convert_to_static, dygraph.dygraph_to_static.convert_call
def larger(x, y):
    if layers.mean(x) > layers.mean(y):
        out = x
    else:
        out = y
    return out


converted = fluid.dygraph.dygraph_to_static.convert_to_static(larger)  # branches on Variables are operators in it
show(converted(data([1.0, 2.0]), data([5.0, 5.0])))
print(fluid.dygraph.dygraph_to_static.convert_call(np.sum) is np.sum)  # calls in it go through this; libraries stay
#: dygraph.dygraph_to_static.program_translator.ProgramCache
cache = fluid.dygraph.ProgramTranslator().get_program_cache()
print(type(cache) is fluid.dygraph.dygraph_to_static.program_translator.ProgramCache)
with fluid.dygraph.guard():
    double = fluid.dygraph.declarative(lambda x: x * 2.0)
    x = fluid.dygraph.to_variable(np.array([1.0, 2.0], "float32"))
    print(double(x).numpy().tolist())
    print([op.type for op in cache.last().main_program.global_block().ops])  # the Program that was made
#: dygraph.dygraph_to_static.program_translator.ConcreteProgram
x = data([1.0])
y = x * 2.0
concrete = fluid.dygraph.dygraph_to_static.program_translator.ConcreteProgram([x], [y], [], None, fluid.default_main_program())
print(concrete.inputs[0].name, concrete.main_program is fluid.default_main_program())
#: dygraph.dygraph_to_static.partial_program.PartialProgramLayer
x = fluid.data("x", [None, 2])
y, program = layers.reduce_sum(x * x), fluid.default_main_program()
with fluid.dygraph.guard():
    layer = fluid.dygraph.dygraph_to_static.partial_program.PartialProgramLayer(program, [x], [y])
    value = fluid.dygraph.to_variable(np.array([[1.0, 2.0]], "float32"))
    value.stop_gradient = False
    (total,) = layer([value])
    total.backward()
    print(total.numpy().tolist(), value.gradient().tolist(), isinstance(layer, fluid.dygraph.Layer))
#: dygraph.jit.create_program_from_desc, dygraph.jit.extract_vars
x = fluid.data("x", [None, 2])
program = fluid.dygraph.jit.create_program_from_desc(fluid.default_main_program().desc)
print(program is not fluid.default_main_program(), program.global_block().has_var("x"))
with fluid.dygraph.guard():
    a, b = variable(np.zeros(1, "float32")), variable(np.zeros(1, "float32"))
    print(len(fluid.dygraph.jit.extract_vars([a, [b]])))
