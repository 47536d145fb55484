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
