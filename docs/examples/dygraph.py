"""fluid.dygraph: eager mode

Operators run as they are written; the same declarations and kernels as in Programs.
"""
# ruff: noqa
#: setup
one = fluid.initializer.Constant(1.0)
variable = fluid.dygraph.to_variable


def ones(*shape):
    return variable(np.ones(shape, "float32"))
#: dygraph.guard, dygraph.to_variable
with fluid.dygraph.guard():
    x = fluid.dygraph.to_variable(np.array([2.0, 3.0], "float32"))
    x.stop_gradient = False
    y = layers.reduce_sum(x * x)
    y.backward()
    print(y.numpy().tolist(), x.gradient().tolist())
#: dygraph.Linear
with fluid.dygraph.guard():
    layer = fluid.dygraph.Linear(3, 2, param_attr=one, act="relu")
    print(layer(ones(1, 3)).numpy().tolist(), [p.name for p in layer.parameters()])
#: dygraph.Embedding
with fluid.dygraph.guard():
    layer = fluid.dygraph.Embedding([10, 3], param_attr=one)
    print(layer(variable(np.array([[1], [2]]))).shape)
#: dygraph.Conv2D
with fluid.dygraph.guard():
    layer = fluid.dygraph.Conv2D(num_channels=1, num_filters=1, filter_size=2, param_attr=one)
    print(layer(ones(1, 1, 3, 3)).numpy().tolist())
#: dygraph.Conv2DTranspose
with fluid.dygraph.guard():
    layer = fluid.dygraph.Conv2DTranspose(num_channels=1, num_filters=1, filter_size=2, stride=2, param_attr=one)
    print(layer(ones(1, 1, 1, 2)).numpy().tolist())
#: dygraph.Conv3D
with fluid.dygraph.guard():
    layer = fluid.dygraph.Conv3D(num_channels=1, num_filters=1, filter_size=2, param_attr=one)
    print(layer(ones(1, 1, 2, 2, 2)).numpy().tolist())
#: dygraph.Pool2D
with fluid.dygraph.guard():
    layer = fluid.dygraph.Pool2D(pool_size=2, pool_type="avg", pool_stride=2)
    print(layer(variable(np.arange(4, dtype="float32").reshape(1, 1, 2, 2))).numpy().tolist())
#: dygraph.BatchNorm
with fluid.dygraph.guard():
    layer = fluid.dygraph.BatchNorm(1)
    x = variable(np.array([1.0, 3.0], "float32").reshape(2, 1, 1, 1))
    print(layer(x).numpy().ravel().round(3).tolist())
    layer.eval()
    print(layer(x).numpy().ravel().round(3).tolist())  # by the moving statistics
#: dygraph.LayerNorm
with fluid.dygraph.guard():
    layer = fluid.dygraph.LayerNorm(2)
    print(layer(variable(np.array([[1.0, 3.0]], "float32"))).numpy().round(3).tolist())
#: dygraph.GRUUnit
with fluid.dygraph.guard():
    layer = fluid.dygraph.GRUUnit(size=6, param_attr=one)
    hidden, reset, gate = layer(ones(1, 6), ones(1, 2))
    print(hidden.shape, gate.shape)
#: dygraph.save_dygraph, dygraph.load_dygraph
with fluid.dygraph.guard():
    layer = fluid.dygraph.Linear(2, 1, param_attr=one)
    fluid.dygraph.save_dygraph(layer.state_dict(), "model")  # model.pdparams
    parameters, optimizer = fluid.dygraph.load_dygraph("model")
    print(parameters["weight"].tolist(), optimizer)
    layer.set_dict(parameters)
#: dygraph.NoamDecay
with fluid.dygraph.guard():
    rate = fluid.dygraph.NoamDecay(d_model=64, warmup_steps=2)
    print([round(float(np.array(rate().numpy()).item()), 4) for _ in range(3)])
#: dygraph.PiecewiseDecay
with fluid.dygraph.guard():
    rate = fluid.dygraph.PiecewiseDecay(boundaries=[1, 2], values=[0.1, 0.05, 0.01], begin=0)
    print([round(float(np.array(rate().numpy()).item()), 4) for _ in range(3)])
#: dygraph.BackwardStrategy
with fluid.dygraph.guard():
    strategy = fluid.dygraph.BackwardStrategy()
    strategy.sort_sum_gradient = True
    x = ones(2)
    x.stop_gradient = False
    (x + x).backward(strategy)
    print(x.gradient().tolist())
#: dygraph.DataParallel, dygraph.prepare_context
with fluid.dygraph.guard():
    strategy = fluid.dygraph.prepare_context(fluid.dygraph.parallel.ParallelStrategy())
    layer = fluid.dygraph.DataParallel(fluid.dygraph.Linear(2, 1, param_attr=one), strategy)
    loss = layer.scale_loss(layers.mean(layer(ones(1, 2))))
    loss.backward()
    layer.apply_collective_grads()  # of one process: as they are
    print(loss.numpy().tolist())
#: dygraph.parallel.Env
env = fluid.dygraph.parallel.Env()
print(env.nranks, env.local_rank)
#: core.ops.conv2d
with fluid.dygraph.guard():
    print(fluid.core.ops.conv2d(ones(1, 1, 3, 3), ones(1, 1, 2, 2), "strides", [1, 1]).numpy().tolist())
#: dygraph.Layer
class Twice(fluid.dygraph.Layer):
    def __init__(self):
        super(Twice, self).__init__()
        self.inner = fluid.dygraph.Linear(2, 2, param_attr=one)
        self.scale = self.create_parameter([1], default_initializer=fluid.initializer.Constant(3.0))

    def forward(self, x):
        return self.inner(self.inner(x)) * self.scale


with fluid.dygraph.guard():
    layer = Twice()
    print(layer(ones(1, 2)).numpy().tolist(), sorted(layer.state_dict()))
#: dygraph.Sequential
with fluid.dygraph.guard():
    model = fluid.dygraph.Sequential(
        ("first", fluid.dygraph.Linear(3, 2, param_attr=one)), ("last", fluid.dygraph.Linear(2, 1, param_attr=one))
    )
    print(model(ones(1, 3)).numpy().tolist(), sorted(model.state_dict()))
#: dygraph.LayerList
with fluid.dygraph.guard():
    stack = fluid.dygraph.LayerList([fluid.dygraph.Linear(2, 2, param_attr=one) for _ in range(2)])
    stack.append(fluid.dygraph.Linear(2, 1, param_attr=one))
    x = ones(1, 2)
    for layer in stack:
        x = layer(x)
    print(len(stack), x.numpy().tolist())
#: dygraph.ParameterList
with fluid.dygraph.guard():
    weights = fluid.dygraph.ParameterList([layers.create_parameter([2, 2], "float32") for _ in range(3)])
    print(len(weights), [list(w.shape) for w in weights][0], len(weights.parameters()))
#: dygraph.Conv3DTranspose
with fluid.dygraph.guard():
    layer = fluid.dygraph.Conv3DTranspose(num_channels=1, num_filters=1, filter_size=2, param_attr=one)
    print(layer(ones(1, 1, 1, 1, 1)).numpy().ravel().tolist())
#: dygraph.Dropout
with fluid.dygraph.guard():
    layer = fluid.dygraph.Dropout(p=0.5)
    print(sorted(set(layer(ones(50, 2)).numpy().ravel().tolist())))
    layer.eval()
    print(layer(ones(1, 2)).numpy().tolist())  # "downgrade_in_infer": what comes out on average in training
#: dygraph.GroupNorm
with fluid.dygraph.guard():
    layer = fluid.dygraph.GroupNorm(channels=4, groups=2)
    x = variable(np.array([1.0, 3.0, 10.0, 30.0], "float32").reshape(1, 4, 1, 1))
    print(layer(x).numpy().ravel().round(3).tolist())  # two channels have one mean and variance
#: dygraph.InstanceNorm
with fluid.dygraph.guard():
    layer = fluid.dygraph.InstanceNorm(1)
    x = variable(np.array([[1.0, 3.0], [10.0, 30.0]], "float32").reshape(2, 1, 1, 2))
    print(layer(x).numpy().ravel().round(3).tolist())  # each picture by itself
#: dygraph.SpectralNorm
with fluid.dygraph.guard():
    weight = variable(np.diag([4.0, 2.0]).astype("float32"))
    layer = fluid.dygraph.SpectralNorm([2, 2], power_iters=20)
    print(layer(weight).numpy().round(3).tolist())  # divided by the largest singular value
#: dygraph.PRelu
with fluid.dygraph.guard():
    layer = fluid.dygraph.PRelu(mode="all", param_attr=fluid.initializer.Constant(0.25))
    print(layer(variable(np.array([-4.0, 4.0], "float32"))).numpy().tolist())
#: dygraph.BilinearTensorProduct
with fluid.dygraph.guard():
    layer = fluid.dygraph.BilinearTensorProduct(2, 3, 1, param_attr=one)
    print(layer(ones(1, 2), ones(1, 3)).numpy().tolist())
#: dygraph.TreeConv
with fluid.dygraph.guard():
    layer = fluid.dygraph.TreeConv(feature_size=2, output_size=1, num_filters=1, max_depth=2, act=None, param_attr=one)
    edges = variable(np.array([[[1, 2], [1, 3]]], "int32"))  # node 1 has the children 2 and 3
    print(layer(ones(1, 3, 2), edges).numpy().ravel().round(3).tolist())
#: dygraph.NCE
with fluid.dygraph.guard():
    layer = fluid.dygraph.NCE(num_total_classes=4, dim=2, param_attr=one, num_neg_samples=2, seed=1)
    cost = layer(ones(1, 2), variable(np.array([[1]], "int64")))
    print(cost.numpy().round(3).tolist())
#: dygraph.L1Loss, dygraph.MSELoss
with fluid.dygraph.guard():
    x, y = variable(np.array([1.0, 4.0], "float32")), variable(np.array([2.0, 2.0], "float32"))
    print(fluid.dygraph.L1Loss()(x, y).numpy().tolist(), fluid.dygraph.MSELoss(reduction="sum")(x, y).numpy().tolist())
#: dygraph.BCELoss
with fluid.dygraph.guard():
    p, label = variable(np.array([[0.5], [0.8]], "float32")), variable(np.array([[1.0], [0.0]], "float32"))
    print(fluid.dygraph.BCELoss(reduction="none")(p, label).numpy().round(4).tolist())
#: dygraph.NLLLoss
with fluid.dygraph.guard():
    log_p = variable(np.log([[0.5, 0.5], [0.2, 0.8]]).astype("float32"))
    print(fluid.dygraph.NLLLoss(reduction="none")(log_p, variable(np.array([0, 1], "int64"))).numpy().round(4).tolist())
#: dygraph.nn.RowConv, dygraph.nn.SequenceConv
# Layers of sequences, which are for Programs and refuse eager mode
x = data([[1.0], [2.0], [4.0]], lengths=[[2, 1]])
next_row = fluid.dygraph.nn.RowConv("next", future_context_size=1, param_attr=one)
window = fluid.dygraph.nn.SequenceConv("window", num_filters=1, filter_size=3, param_attr=one, bias_attr=False)
show(next_row(x), window(x), window(window(x)))
print([parameter.name for parameter in fluid.default_main_program().all_parameters()])
#: dygraph.grad
with fluid.dygraph.guard():
    x = variable(np.array([3.0], "float32"))
    x.stop_gradient = False
    first = fluid.dygraph.grad(x * x * x, x, create_graph=True)[0]
    second = fluid.dygraph.grad(first, x)[0]
    print(first.numpy().tolist(), second.numpy().tolist())  # 3 x^2 and 6 x
#: dygraph.no_grad
with fluid.dygraph.guard():
    x = variable(np.array([3.0], "float32"))
    x.stop_gradient = False
    with fluid.dygraph.no_grad():
        y = x * 2.0
    print(y.stop_gradient, fluid.dygraph.no_grad(lambda v: v * 2.0)(x).stop_gradient)
#: dygraph.enabled, fluid.enable_dygraph, fluid.disable_dygraph, fluid.enable_imperative, fluid.disable_imperative
fluid.enable_dygraph(fluid.CPUPlace())  # as guard() does, until it is ended
print(fluid.dygraph.enabled())
fluid.disable_dygraph()
fluid.enable_imperative()  # its former name
fluid.disable_imperative()
print(fluid.dygraph.enabled())
#: dygraph.layers.HookRemoveHelper
with fluid.dygraph.guard():
    layer = fluid.dygraph.Linear(2, 1, param_attr=one)
    hook = layer.register_forward_post_hook(lambda layer, inputs, output: output * 10.0)
    print(type(hook) is fluid.dygraph.layers.HookRemoveHelper, layer(ones(1, 2)).numpy().tolist())
    hook.remove()
    print(layer(ones(1, 2)).numpy().tolist())
#: dygraph.tracer.Tracer
with fluid.dygraph.guard():
    tracer = fluid.framework._dygraph_tracer()  # runs the operators of this mode
    x = fluid.dygraph.to_variable(np.array([-1.0, 2.0], "float32"))
    out = tracer.new_variable(None, "float32")
    tracer.trace_op("relu", {"X": x}, {"Out": out}, {})
    print(type(tracer) is fluid.dygraph.tracer.Tracer, out.numpy().tolist())
print(fluid.framework._dygraph_tracer())
#: dygraph.layer_object_helper.LayerObjectHelper
with fluid.dygraph.guard():
    layer = fluid.dygraph.Linear(2, 1, act="relu")
    helper = layer._helper  # makes the parameters and activations of a Layer
    print(type(helper) is fluid.dygraph.layer_object_helper.LayerObjectHelper)
    w = helper.create_parameter(fluid.ParamAttr(initializer=one), [2], "float32")
    print(w.name, helper.append_activation(w * -1.0, act="relu").numpy().tolist())
#: dygraph.math_op_patch.monkey_patch_math_varbase
fluid.dygraph.math_op_patch.monkey_patch_math_varbase()  # done when fluid is imported; again changes nothing
with fluid.dygraph.guard():
    print((ones(2) + 1.0).numpy().tolist())
