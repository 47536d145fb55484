import numpy as np
import paddle, paddle.fluid as fluid

def vgg_bn_drop(input):
    def conv_block(ipt, num_filter, groups, dropouts):
        return fluid.nets.img_conv_group(input=ipt, pool_size=2, pool_stride=2, conv_num_filter=[num_filter] * groups,
            conv_filter_size=3, conv_act='relu', conv_with_batchnorm=True, conv_batchnorm_drop_rate=dropouts, pool_type='max')
    conv1 = conv_block(input, 4, 2, [0.0, 0])
    conv2 = conv_block(conv1, 8, 2, [0.0, 0])
    drop = fluid.layers.dropout(x=conv2, dropout_prob=0.0)
    fc1 = fluid.layers.fc(input=drop, size=16, act=None)
    bn = fluid.layers.batch_norm(input=fc1, act='relu')
    drop2 = fluid.layers.dropout(x=bn, dropout_prob=0.5, seed=3, dropout_implementation="upscale_in_train") if False else bn
    fc2 = fluid.layers.fc(input=drop2, size=16, act=None)
    return fluid.layers.fc(input=fc2, size=10, act='softmax')

def conv_bn_layer(input, ch_out, filter_size, stride, padding, act='relu', bias_attr=False):
    tmp = fluid.layers.conv2d(input=input, filter_size=filter_size, num_filters=ch_out, stride=stride, padding=padding, act=None, bias_attr=bias_attr)
    return fluid.layers.batch_norm(input=tmp, act=act)

def shortcut(input, ch_in, ch_out, stride):
    if ch_in != ch_out:
        return conv_bn_layer(input, ch_out, 1, stride, 0, None)
    return input

def basicblock(input, ch_in, ch_out, stride):
    tmp = conv_bn_layer(input, ch_out, 3, stride, 1)
    tmp = conv_bn_layer(tmp, ch_out, 3, 1, 1, act=None, bias_attr=True)
    short = shortcut(input, ch_in, ch_out, stride)
    return fluid.layers.elementwise_add(x=tmp, y=short, act='relu')

def layer_warp(block_func, input, ch_in, ch_out, count, stride):
    tmp = block_func(input, ch_in, ch_out, stride)
    for i in range(1, count):
        tmp = block_func(tmp, ch_out, ch_out, 1)
    return tmp

def resnet_cifar10(ipt, depth=8):
    assert (depth - 2) % 6 == 0
    n = (depth - 2) // 6
    conv1 = conv_bn_layer(ipt, ch_out=4, filter_size=3, stride=1, padding=1)
    res1 = layer_warp(basicblock, conv1, 4, 4, n, 1)
    res2 = layer_warp(basicblock, res1, 4, 8, n, 2)
    res3 = layer_warp(basicblock, res2, 8, 16, n, 2)
    pool = fluid.layers.pool2d(input=res3, pool_size=4, pool_type='avg', pool_stride=1)
    return fluid.layers.fc(input=pool, size=10, act='softmax')

def set_params(prog, seed=0):
    rng = np.random.RandomState(seed)
    for p in prog.global_block().iter_parameters() if hasattr(prog.global_block(), 'iter_parameters') else prog.global_block().all_parameters():
        v = rng.rand(*p.shape) * 0.4 - 0.2
        if 'batch_norm' in p.name and p.trainable is True: v = v + 1
        fluid.global_scope().find_var(p.name).get_tensor().set(v.astype('float32'), fluid.CPUPlace())

def optimizer_setting(kind):
    if kind == 'piecewise':
        lr = fluid.layers.piecewise_decay(boundaries=[2, 4], values=[0.1, 0.01, 0.001])
        return lr, fluid.optimizer.Momentum(learning_rate=lr, momentum=0.9, regularization=fluid.regularizer.L2Decay(1e-4))
    if kind == 'cosine':
        lr = fluid.layers.cosine_decay(learning_rate=0.1, step_each_epoch=3, epochs=4)
        return lr, fluid.optimizer.Momentum(learning_rate=lr, momentum=0.9, use_nesterov=True, regularization=fluid.regularizer.L1Decay(1e-4))
    if kind == 'warm':
        lr = fluid.layers.linear_lr_warmup(fluid.layers.exponential_decay(0.1, 2, 0.5, staircase=True), warmup_steps=3, start_lr=0.0, end_lr=0.1)
        return lr, fluid.optimizer.RMSProp(learning_rate=lr, centered=True, momentum=0.5)
    if kind == 'poly':
        lr = fluid.layers.polynomial_decay(0.1, 5, 0.001, power=0.9, cycle=True)
        return lr, fluid.optimizer.LarsMomentum(learning_rate=lr, momentum=0.9)
    lr = fluid.layers.noam_decay(1 / (4000 * (0.1 ** 2)), 4000)
    return lr, fluid.optimizer.Adamax(learning_rate=lr)

def run(net, kind):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 90
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        images = fluid.layers.data(name='pixel', shape=[3, 16, 16], dtype='float32')
        label = fluid.layers.data(name='label', shape=[1], dtype='int64')
        predict = net(images)
        cost = fluid.layers.cross_entropy(input=predict, label=label)
        avg_cost = fluid.layers.mean(cost)
        acc1 = fluid.layers.accuracy(input=predict, label=label, k=1)
        acc5 = fluid.layers.accuracy(input=predict, label=label, k=5)
        test_program = main.clone(for_test=True)
        lr, opt = optimizer_setting(kind)
        opt.minimize(avg_cost)
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        set_params(main)
        rng = np.random.RandomState(5)
        for step in range(6):
            feed = {'pixel': rng.rand(8, 3, 16, 16).astype('float32'), 'label': rng.randint(0, 10, (8, 1)).astype('int64')}
            outs = exe.run(main, feed=feed, fetch_list=[avg_cost, acc1, acc5, lr])
            print(net.__name__, kind, step, ' '.join('%.4f' % o[0] for o in outs[:3]), '%.6f' % outs[3][0])
        outs = exe.run(test_program, feed=feed, fetch_list=[avg_cost.name, acc5.name])
        print('test', outs)
        ps = main.global_block().all_parameters()
        print(len(ps), [p.name for p in ps][:6])
        print([k for k, v in sorted(main.global_block().vars.items()) if v.persistable][:20])

if __name__ == '__main__':
    run(resnet_cifar10, 'piecewise')
    run(vgg_bn_drop, 'cosine')
    for k in ('warm', 'poly', 'noam'):
        run(resnet_cifar10, k)
