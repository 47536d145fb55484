"""fluid.optimizer, fluid.backward

An optimizer appends gradients and updates to the Program.
"""
# ruff: noqa
#: setup
def loss_of():
    """w * w, with w beginning at 2: the gradient is 2 w."""
    attr = fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(2.0))
    w = layers.create_parameter([1], "float32", attr=attr)
    return layers.mean(layers.square(w))


def train(steps=3, *fetches):
    """Run the default Program some times; print w or `fetches` after each."""
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for _ in range(steps):
        values = exe.run(fetch_list=list(fetches) or ["w"])
        print([(v.astype("float64").round(4) + 0.0).tolist() for v in values])
    return exe
#: optimizer.SGD, optimizer.SGDOptimizer
fluid.optimizer.SGD(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.Momentum
fluid.optimizer.Momentum(learning_rate=0.1, momentum=0.9, use_nesterov=True).minimize(loss_of())
train()
#: optimizer.Adam, optimizer.AdamOptimizer
fluid.optimizer.Adam(learning_rate=0.1, beta1=0.9, beta2=0.99).minimize(loss_of())
train()
#: optimizer.Adagrad, optimizer.AdagradOptimizer
fluid.optimizer.Adagrad(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.RMSProp, optimizer.RMSPropOptimizer
fluid.optimizer.RMSProp(learning_rate=0.1, rho=0.9, momentum=0.5).minimize(loss_of())
train()
#: optimizer.Adadelta
fluid.optimizer.Adadelta(learning_rate=1.0, epsilon=1e-2, rho=0.9).minimize(loss_of())
train()
#: optimizer.DGCMomentumOptimizer
optimizer = fluid.optimizer.DGCMomentumOptimizer(learning_rate=0.1, momentum=0.9, rampup_begin_step=0)
print(type(optimizer).__name__)  # on one device there is nothing to compress
#: optimizer.ExponentialMovingAverage
fluid.optimizer.SGD(learning_rate=0.25).minimize(loss_of())
average = fluid.optimizer.ExponentialMovingAverage(decay=0.5)
average.update()
exe = train(2)
with average.apply(exe):
    print(np.array(fluid.global_scope().find_var("w").get_tensor()).round(4).tolist())
print(np.array(fluid.global_scope().find_var("w").get_tensor()).tolist())
#: optimizer.ModelAverage
fluid.optimizer.SGD(learning_rate=0.25).minimize(loss_of())
average = fluid.optimizer.ModelAverage(0.5, min_average_window=2, max_average_window=4)
exe = train(2)
with average.apply(exe):
    print(np.array(fluid.global_scope().find_var("w").get_tensor()).tolist())
#: backward.append_backward
loss = loss_of()
(pair,) = fluid.backward.append_backward(loss)
parameter, gradient = pair
print(parameter.name, gradient.name)
train(1, gradient)
#: fluid.gradients
x = data([3.0])
x.stop_gradient = False
y = layers.square(x)
(gradient,) = fluid.gradients([y], [x])
show(gradient)
#: optimizer.Adamax
fluid.optimizer.Adamax(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.DecayedAdagrad
fluid.optimizer.DecayedAdagrad(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.Ftrl
fluid.optimizer.Ftrl(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.Lamb
fluid.optimizer.Lamb(learning_rate=0.1).minimize(loss_of())
train()
#: optimizer.LarsMomentum
fluid.optimizer.LarsMomentum(learning_rate=1.0, momentum=0.9).minimize(loss_of())
train()
#: optimizer.LookaheadOptimizer
inner = fluid.optimizer.SGD(learning_rate=0.1)
fluid.optimizer.LookaheadOptimizer(inner, alpha=0.5, k=2).minimize(loss_of())
train()
#: optimizer.RecomputeOptimizer
x = data([[1.0, 2.0]])
one = fluid.initializer.Constant(0.5)
first = layers.fc(x, 2, param_attr=one, act="relu")
loss = layers.mean(layers.fc(first, 1, param_attr=fluid.ParamAttr(name="w", initializer=one)))
optimizer = fluid.optimizer.RecomputeOptimizer(fluid.optimizer.SGD(0.1))
optimizer._set_checkpoints([first])  # what is kept; the rest is computed again
optimizer.minimize(loss)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
print(exe.run(feed=feed, fetch_list=[loss])[0].tolist(), exe.run(feed=feed, fetch_list=[loss])[0].round(4).astype("float64").round(4).tolist())
