from __future__ import print_function
import os, sys, tempfile
import numpy as np
import paddle
import paddle.fluid as fluid

def set_params(prog, seed=0, scale=1.0):
    rng = np.random.RandomState(seed)
    for p in prog.global_block().all_parameters():
        v = ((rng.rand(*p.shape) - 0.5) * scale).astype("float32")
        fluid.global_scope().find_var(p.name).get_tensor().set(v, fluid.CPUPlace())

NOISE = 6
def bn(x, name=None, act='relu'):
    return fluid.layers.batch_norm(x, param_attr=name + '1', bias_attr=name + '2', moving_mean_name=name + '3', moving_variance_name=name + '4', name=name, act=act)
def fc(x, n, name=None, act=None):
    return fluid.layers.fc(input=x, size=n, act=act, param_attr=fluid.ParamAttr(name=name + 'w'), bias_attr=fluid.ParamAttr(name=name + 'b'))
def D(images, name="D"):
    h = fluid.layers.leaky_relu(fc(images, 10, name + 'fc1'), alpha=0.2)
    h = bn(fc(h, 8, name + 'fc2'), name + 'bn1', act='leaky_relu')
    return fc(h, 1, name + 'fc3', act='sigmoid')
def G(inputs, name="G"):
    h = bn(fc(inputs, 8, name + 'fc1'), name + 'bn1')
    return fc(h, 9, name + 'fc2', act='tanh')
def loss(x, label):
    return fluid.layers.mean(fluid.layers.sigmoid_cross_entropy_with_logits(x=x, label=label))
d_program, dg_program = fluid.Program(), fluid.Program()
with fluid.program_guard(d_program):
    img = fluid.layers.data(name='img', shape=[9], dtype='float32')
    label = fluid.layers.data(name='label', shape=[1], dtype='float32')
    d_logit = D(img)
    d_loss = loss(d_logit, label)
with fluid.program_guard(dg_program):
    noise = fluid.layers.data(name='noise', shape=[NOISE], dtype='float32')
    g_img = G(noise)
    g_program = dg_program.clone()
    g_program_test = dg_program.clone(for_test=True)
    dg_logit = D(g_img)
    dg_loss = loss(dg_logit, fluid.layers.fill_constant_batch_size_like(input=noise, dtype='float32', shape=[-1, 1], value=1.0))
opt = fluid.optimizer.Momentum(0.05, momentum=0.5)
opt.minimize(loss=d_loss, parameter_list=[p.name for p in d_program.global_block().all_parameters()])
parameters = [p.name for p in g_program.global_block().all_parameters()]
print(sorted(parameters))
opt = fluid.optimizer.Momentum(0.05, momentum=0.5)
opt.minimize(loss=dg_loss, parameter_list=parameters)
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
set_params(dg_program)
rng = np.random.RandomState(2)
for step in range(6):
    noise_data = rng.uniform(-1, 1, [7, NOISE]).astype('float32')
    real = rng.rand(7, 9).astype('float32')
    g = exe.run(g_program, feed={'noise': noise_data}, fetch_list=[g_img])[0]
    d1 = exe.run(d_program, feed={'img': g, 'label': np.zeros((7, 1), 'float32')}, fetch_list=[d_loss])[0][0]
    d2 = exe.run(d_program, feed={'img': real, 'label': np.ones((7, 1), 'float32')}, fetch_list=[d_loss])[0][0]
    for _ in range(2):
        dg = exe.run(dg_program, feed={'noise': noise_data}, fetch_list=[dg_loss])[0]
    print(step, '{0:.5f} {1:.5f}'.format(float(d1 + d2), float(dg[0])), dg.shape, '%.5f' % g.mean())
t = exe.run(g_program_test, feed={'noise': noise_data}, fetch_list=[g_img])[0]
print(t[0], np.array(fluid.global_scope().find_var('Dbn13').get_tensor()), len(fluid.default_startup_program().global_block().ops))
print(sorted(v.name for v in dg_program.list_vars() if v.persistable))
