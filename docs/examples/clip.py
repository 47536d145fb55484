"""fluid.clip, fluid.regularizer

Gradients that are kept small, and parameters.
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
#: regularizer.L2Decay, regularizer.L2DecayRegularizer
fluid.optimizer.SGD(0.1, regularization=fluid.regularizer.L2Decay(1.0)).minimize(loss_of())
train(1)  # the gradient is 2 w + 1 w
#: regularizer.L1DecayRegularizer
fluid.optimizer.SGD(0.1, regularization=fluid.regularizer.L1DecayRegularizer(1.0)).minimize(loss_of())
train(1)  # the gradient is 2 w + 1
#: clip.GradientClipByValue
clip = fluid.clip.GradientClipByValue(max=1.0)
fluid.optimizer.SGD(0.1, grad_clip=clip).minimize(loss_of())
train(1)
#: clip.GradientClipByGlobalNorm
clip = fluid.clip.GradientClipByGlobalNorm(clip_norm=2.0)
fluid.optimizer.SGD(0.1, grad_clip=clip).minimize(loss_of())
train(1)
#: clip.set_gradient_clip
fluid.clip.set_gradient_clip(fluid.clip.GradientClipByValue(max=0.5))  # of all parameters
fluid.optimizer.SGD(0.1).minimize(loss_of())
train(1)
#: clip.append_gradient_clip_ops
loss = loss_of()
fluid.clip.set_gradient_clip(fluid.clip.GradientClipByValue(max=0.5), param_list=["w"])
pairs = fluid.clip.append_gradient_clip_ops(fluid.backward.append_backward(loss))
train(1, pairs[0][1])
#: clip.GradientClipByNorm
clip = fluid.clip.GradientClipByNorm(clip_norm=1.0)
fluid.optimizer.SGD(0.1, grad_clip=clip).minimize(loss_of())
train(1)
#: clip.ErrorClipByValue
x = data([[1.0, 2.0]])
hidden = layers.fc(x, 1, param_attr=fluid.ParamAttr(name="w", initializer=fluid.initializer.Constant(1.0)), bias_attr=False)
fluid.default_main_program().global_block().var(hidden.name)._set_error_clip(fluid.clip.ErrorClipByValue(max=0.1))
fluid.optimizer.SGD(1.0).minimize(layers.mean(hidden))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
exe.run(feed=feed)
print(np.array(fluid.global_scope().find_var("w").get_tensor()).round(4).astype("float64").round(4).tolist())
