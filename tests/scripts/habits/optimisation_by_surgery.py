"""Training tricks by Program surgery: MoCo's queue, mean teachers, adversarial steps, sums of gradients over batches, AdamW
by hand with averages, projected gradients of two tasks, layers that are thawed one after another."""
import numpy as np, os, sys, copy, collections
import paddle.fluid as fluid
import paddle.fluid.layers as L
from paddle.fluid.layer_helper import LayerHelper
from paddle.fluid.framework import Parameter, program_guard, default_main_program, default_startup_program
from kit import draw_when_started, section
place = fluid.CPUPlace()
draw_when_started()
R = np.random.RandomState


def encoder(x, name, trainable=True, dim=4):
    P = lambda n: fluid.ParamAttr(name=name + n, trainable=trainable)
    h = L.fc(x, 8, act='tanh', param_attr=P('fc1.w'), bias_attr=P('fc1.b'))
    h = L.batch_norm(h, param_attr=P('bn.s'), bias_attr=P('bn.o'), moving_mean_name=name + 'bn.m', moving_variance_name=name + 'bn.v')
    return L.l2_normalize(L.fc(h, dim, param_attr=P('fc2.w'), bias_attr=P('fc2.b')), axis=1)


def start(main, startup):
    exe = fluid.Executor(place)
    exe.run(startup)
    return exe


def moco(Kq=12, m=0.9, T=0.2, B=4):
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup):
        a, b = L.data('im_q', [6]), L.data('im_k', [6])
        q = encoder(a, 'q_')
        k = encoder(b, 'k_', False)
        k.stop_gradient = True
        queue = L.create_global_var([Kq, 4], 0.1, 'float32', persistable=True, name='queue')
        ptr = L.create_global_var([1], 0, 'int64', persistable=True, name='ptr')
        pos = L.reduce_sum(q * k, 1, keep_dim=True)
        neg = L.matmul(q, queue, transpose_y=True)
        logits = L.concat([pos, neg], 1) / T
        lab = L.fill_constant_batch_size_like(logits, [-1, 1], 'int64', 0)
        loss = L.mean(L.softmax_with_cross_entropy(logits, lab))
        acc = L.accuracy(L.softmax(logits), lab)
        old = {p.name: p * 1. for p in main.all_parameters() if p.name.startswith('q_')}
        opt = fluid.optimizer.Momentum(0.1, 0.9, regularization=fluid.regularizer.L2Decay(1e-4))
        opt.minimize(loss, parameter_list=[p.name for p in main.all_parameters() if p.name.startswith('q_')])
        gap = [L.reduce_sum(L.abs(main.global_block().var(n) - o)) for n, o in sorted(old.items())]
        for p in list(main.all_parameters()):
            if p.name.startswith('k_'):
                qp = main.global_block().var('q_' + p.name[2:])
                L.assign(p * m + qp * (1 - m), p)
        newq = L.concat([k, L.slice(queue, [0], [0], [Kq - B])], 0)
        L.assign(newq, queue)
        L.increment(ptr, value=B, in_place=True)
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup)
        for n in ('fc1.w', 'fc2.w', 'fc1.b', 'fc2.b'):
            s = fluid.global_scope()
            s.find_var('k_' + n).get_tensor().set(np.array(s.find_var('q_' + n).get_tensor()), place)
        r = R(0)
        for i in range(5):
            x = r.randn(B, 6).astype('float32')
            o = exe.run(main, feed={'im_q': x, 'im_k': x + .1 * r.randn(B, 6).astype('float32')}, fetch_list=[loss, acc, queue, ptr] + gap)
            print('moco', i, o[0], o[1], '%.5f' % o[2].sum(), o[3], ['%.5f' % g for g in o[4:]])
        print(['%s %.5f' % (p.name, np.abs(np.array(fluid.global_scope().find_var(p.name).get_tensor())).sum()) for p in main.all_parameters()])


def mean_teacher():
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        x, y = L.data('x', [6]), L.data('y', [1], dtype='int64')
        s, t = L.fc(encoder(x, 's_'), 3, name='s_head'), L.fc(encoder(x, 't_'), 3, name='t_head')
        t.stop_gradient = True
        step = L.autoincreased_step_counter(begin=1)
        ramp = L.exp(-5. * L.square(1. - L.elementwise_min(L.cast(step, 'float32') / 4., L.fill_constant([1], 'float32', 1.))))
        cons = L.mean(L.square_error_cost(L.softmax(s), L.softmax(t)))
        loss = L.mean(L.softmax_with_cross_entropy(s, y)) + ramp * cons
        test = main.clone(for_test=True)
        params = [p for p in main.all_parameters() if p.name.startswith('s_')]
        pg = fluid.optimizer.Adam(0.02).minimize(loss, parameter_list=params)[1]
        alpha = L.elementwise_min(1. - 1. / (L.cast(step, 'float32') + 1.), L.fill_constant([1], 'float32', .99))
        block = main.global_block()
        for p, _ in pg:
            tp = block.var('t_' + p.name[2:])
            block.append_op(type='elementwise_mul', inputs={'X': tp, 'Y': alpha}, outputs={'Out': tp}, attrs={'axis': -1})
            block.append_op(type='sum', inputs={'X': [tp, L.elementwise_mul(p, 1. - alpha)]}, outputs={'Out': tp})
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(1)
        for i in range(5):
            f = {'x': r.randn(5, 6).astype('float32'), 'y': r.randint(0, 3, (5, 1))}
            o = exe.run(main, feed=f, fetch_list=[loss, cons, ramp, alpha]); e, = exe.run(test, feed=f, fetch_list=[t.name])
            print('teacher', i, ['%.5f' % v for v in o], '%.5f' % np.abs(e).sum())


def fgm(V=15, H=5, K=2):
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        ids, y = L.data('ids', [4, 1], dtype='int64'), L.data('y', [1], dtype='int64')

        def forward(e):
            h = L.fc(e, 6, num_flatten_dims=2, act='tanh', param_attr='f.w', bias_attr='f.b')
            return L.fc(L.reduce_mean(h, 1), 3, param_attr='o.w', bias_attr='o.b')
        emb = L.embedding(ids, [V, H], param_attr='emb')
        ce = lambda lg: L.mean(L.softmax_with_cross_entropy(lg, y))
        logits = forward(emb)
        clean = ce(logits)
        g = fluid.gradients(clean, emb)[0]
        g.stop_gradient = True
        norm = L.sqrt(L.reduce_sum(L.square(g), dim=[1, 2], keep_dim=True)) + 1e-8
        delta = 0.5 * g / norm
        delta.stop_gradient = True
        adv = ce(forward(emb + delta))
        lb = [adv]
        lg2 = forward(emb + delta)
        kl = L.reduce_mean(L.kldiv_loss(L.log_softmax(lg2) if hasattr(L, 'log_softmax') else L.log(L.softmax(lg2)), L.softmax(logits), reduction='none')) + L.reduce_mean(L.kldiv_loss(L.log(L.softmax(logits)), L.softmax(lg2), reduction='none'))
        loss = clean + adv + kl
        lr = L.noam_decay(16, 3)
        _, pg = fluid.optimizer.Adam(lr, beta2=.98, epsilon=1e-9, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.)).minimize(loss)
        print([p.name for p, _ in pg], [g_.name for _, g_ in pg])
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(2)
        for i in range(4):
            o = exe.run(main, feed={'ids': r.randint(0, V, (4, 4, 1)), 'y': r.randint(0, 3, (4, 1))}, fetch_list=[clean, adv, kl, loss, lr] + lb)
            print('fgm', i, ['%.5f' % v for v in o])


def accumulate(N=3):
    main, startup = fluid.Program(), fluid.Program()
    apply_prog = fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        x, y = L.data('x', [5]), L.data('y', [1])
        h = L.fc(x, 4, act='relu', param_attr='a.w', bias_attr='a.b')
        loss = L.mean(L.square_error_cost(L.fc(h, 1, param_attr='b.w', bias_attr='b.b'), y))
        opt = fluid.optimizer.Adam(0.05)
        pg = opt.backward(loss)
        accs = []
        for p, g in pg:
            acc = L.create_global_var(list(p.shape), 0., 'float32', persistable=True, name=p.name + '@ACC')
            L.sums([acc, g], out=acc)
            accs.append(acc.name)
    apply_prog = main.clone()
    blk = apply_prog.global_block()
    for _ in range(len(blk.ops)): blk._remove_op(0)
    with program_guard(apply_prog, startup), fluid.unique_name.guard('ap'):
        grads = []
        for (p, _), a in zip(pg, accs):
            v = blk.var(a)
            grads.append((blk.var(p.name), v / N))
        fluid.optimizer.Adam(.05).apply_gradients(grads)
        for a in accs:
            L.assign(L.zeros_like(blk.var(a)), blk.var(a))
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(4)
        for i in range(7):
            v = r.randn(6, 5).astype('float32')
            o = exe.run(main, feed={'x': v, 'y': v[:, :1] * 2}, fetch_list=[loss])
            if i % N == N - 1: exe.run(apply_prog)
            print('accumulate', i, o[0], ['%.5f' % np.abs(np.array(fluid.global_scope().find_var(n).get_tensor())).sum() for n in ['a.w'] + accs])


class AdamW(fluid.optimizer.AdamOptimizer):
    def __init__(self, weight_decay=.01, **kw):
        super(AdamW, self).__init__(**kw)
        self.wd = weight_decay

    def apply_optimize(self, loss, startup_program, params_grads):
        with program_guard(loss.block.program, startup_program):
            scaled = []
            for p, g in params_grads:
                if 'bias' in p.name or '.b' in p.name: continue
                with p.block.program._optimized_guard([p, g]), fluid.framework.name_scope('weight decay'):
                    scaled.append((p, g, p * (self.wd * self._learning_rate if not isinstance(self._learning_rate, fluid.framework.Variable) else self._learning_rate * self.wd)))
            ops = super(AdamW, self).apply_optimize(loss, startup_program, params_grads)
            for p, g, s in scaled:
                with p.block.program._optimized_guard([p, g]), fluid.framework.name_scope('weight decay'):
                    L.assign(L.elementwise_sub(p, s), p)
        return ops


def adamw_ema():
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        x, y = L.data('x', [5]), L.data('y', [1])
        h = L.fc(x, 4, act='relu', param_attr='a.w', bias_attr='a.b')
        loss = L.mean(L.square_error_cost(L.fc(h, 1, param_attr='b.w', bias_attr='b.b'), y))
        test = main.clone(for_test=True)
        AdamW(weight_decay=.3, learning_rate=L.cosine_decay(.1, 2, 4)).minimize(loss)
        ema = fluid.optimizer.ExponentialMovingAverage(0.9, thres_steps=L.learning_rate_scheduler._decay_step_counter())
        ema.update()
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(5)
        for i in range(4):
            v = r.randn(6, 5).astype('float32'); f = {'x': v, 'y': v[:, :1] * 2}
            o = exe.run(main, feed=f, fetch_list=[loss]); a = exe.run(test, feed=f, fetch_list=[loss])
            with ema.apply(exe):
                b = exe.run(test, feed=f, fetch_list=[loss])
            ema_no = None
            with ema.apply(exe, need_restore=False): pass
            ema.restore(exe)
            c = exe.run(test, feed=f, fetch_list=[loss])
            print('adamw', i, ['%.5f' % t[0] for t in (o, a, b, c)])


def pcgrad():
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        x, y = L.data('x', [5]), L.data('y', [2])
        h = L.fc(x, 4, act='tanh', param_attr='a.w', bias_attr='a.b')
        ls = [L.mean(L.square_error_cost(L.fc(h, 1, param_attr='h%d.w' % i, bias_attr=False), L.slice(y, [1], [i], [i + 1]))) for i in range(2)]
        shared = [main.global_block().var(n) for n in ('a.w', 'a.b')]
        gs = [fluid.gradients([l], shared) for l in ls]
        final = []
        for p, a, b in zip(shared, *gs):
            dot = L.reduce_sum(a * b)
            neg = L.cast(L.less_than(dot, L.fill_constant([1], 'float32', 0.)), 'float32')
            a2 = a - neg * dot / (L.reduce_sum(L.square(b)) + 1e-8) * b
            b2 = b - neg * dot / (L.reduce_sum(L.square(a)) + 1e-8) * a
            final.append((p, a2 + b2))
        for i, l in enumerate(ls):
            w = main.global_block().var('h%d.w' % i)
            final.append((w, fluid.gradients([l], [w])[0]))
        opt = fluid.optimizer.Momentum(0.1, .9)
        opt.apply_gradients(final)
        two = fluid.optimizer.SGD(1e-3)
        reg = L.sums([L.reduce_sum(L.square(p)) for p in shared])
        two.minimize(reg, parameter_list=['a.w'])
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(8)
        for i in range(5):
            v = r.randn(6, 5).astype('float32')
            o = exe.run(main, feed={'x': v, 'y': np.concatenate([v[:, :1], -v[:, :1]], 1)}, fetch_list=ls + [reg, final[0][1].name, 'a.w@GRAD']); print('pcgrad', i, ['%.5f' % np.abs(t).sum() for t in o])


def freeze():
    main, startup = fluid.Program(), fluid.Program()
    with program_guard(main, startup), fluid.unique_name.guard():
        x, y = L.data('x', [6]), L.data('y', [1], dtype='int64')
        lg = L.fc(encoder(x, 'n_'), 3, name='head')
        loss = L.mean(L.softmax_with_cross_entropy(lg, y))
        progs = []
        base = main.clone()
    for stage, names in enumerate((['head'], ['head', 'n_fc2'], ['head', 'n_fc2', 'n_fc1', 'n_bn'])):
        p, s = base.clone(), fluid.Program()
        for q in p.all_parameters():
            q.trainable = any(q.name.startswith(n) for n in names)
            q.stop_gradient = not q.trainable
        with program_guard(p, s), fluid.unique_name.guard('st%d_' % stage):
            l = p.global_block().var(loss.name)
            fluid.optimizer.Adam([.1, .05, .02][stage]).minimize(l)
        progs.append((p, s))
    with fluid.scope_guard(fluid.Scope()):
        exe = start(main, startup); r = R(9)
        for stage, (p, s) in enumerate(progs):
            exe.run(s)
            for i in range(2):
                o = exe.run(p, feed={'x': r.randn(5, 6).astype('float32'), 'y': r.randint(0, 3, (5, 1))}, fetch_list=[loss.name])
                print('freeze', stage, i, o[0], ['%.4f' % np.abs(np.array(fluid.global_scope().find_var(q.name).get_tensor())).sum() for q in main.all_parameters()])
        print([len(p.global_block().ops) for p, _ in progs])



for f in (moco, mean_teacher, fgm, accumulate, adamw_ema, pcgrad, freeze):
    section(f)
