"""Fifteen click and multi-task models over fields of ids, each trained, saved and loaded."""
import argparse, logging, math, os, sys, collections
import numpy as np
import paddle.fluid as fluid
from paddle.fluid.layers import *
import paddle.fluid.layers as layers
range = __builtins__["range"] if isinstance(__builtins__, dict) else __builtins__.range
logging.basicConfig(format='%(asctime)s - %(levelname)s - %(message)s')
logger = logging.getLogger("fluid")
logger.setLevel(logging.INFO)
from kit import draw_when_started, section
draw_when_started()
NF, NV, K = 6, 30, 4


def parse_args():
    parser = argparse.ArgumentParser(description="PaddlePaddle CTR example")
    parser.add_argument('--model', type=str, default='all')
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--embedding_size', type=int, default=K)
    parser.add_argument('--reg', type=float, default=1e-4)
    parser.add_argument('--layer_sizes', type=lambda s: [int(x) for x in s.split(',')], default='8,6')
    parser.add_argument('--lr', type=float, default=0.05)
    parser.add_argument('--steps', type=int, default=4)
    return parser.parse_args()


args = parse_args()
init_value_ = 0.1


def inputs():
    feat_idx = data('feat_idx', shape=[NF, 1], dtype='int64')
    feat_value = data('feat_value', shape=[NF], dtype='float32')
    label = data('label', shape=[1], dtype='float32')
    return feat_idx, feat_value, label


def emb(idx, size, name, reg=True, std=init_value_):
    return embedding(input=idx, is_sparse=not reg, dtype='float32', size=[NV + 1, size], padding_idx=0,
                     param_attr=fluid.ParamAttr(name=name, initializer=fluid.initializer.TruncatedNormalInitializer(loc=0.0, scale=std / math.sqrt(float(size))), regularizer=fluid.regularizer.L1DecayRegularizer(args.reg) if reg else None))


def first_order(feat_idx, feat_value):
    w = reshape(emb(feat_idx, 1, 'fm_w'), shape=[-1, NF, 1])
    return reduce_sum(w * reshape(feat_value, [-1, NF, 1]), 1)


def dense_embs(feat_idx, feat_value, name='embedding_w'):
    e = reshape(emb(feat_idx, K, name), shape=[-1, NF, K])
    return e * reshape(feat_value, [-1, NF, 1])


def mlp(x, sizes, name='dnn', act='relu'):
    for i, s in enumerate(sizes):
        x = fc(input=x, size=s, act=act, param_attr=fluid.ParamAttr(name='%s_w_%d' % (name, i), initializer=fluid.initializer.TruncatedNormalInitializer(loc=0.0, scale=init_value_ / math.sqrt(float(10)))), bias_attr=fluid.ParamAttr(name='%s_b_%d' % (name, i)))
    return x


def fm(i, v, l):
    e = dense_embs(i, v)
    s = reduce_sum(e, 1)
    y2 = 0.5 * reduce_sum(square(s) - reduce_sum(square(e), 1), 1, keep_dim=True)
    b = create_parameter(shape=[1], dtype='float32', default_initializer=fluid.initializer.ConstantInitializer(value=0))
    return first_order(i, v) + y2 + b


def ffm(i, v, l):
    outs = 0
    field = []
    for f in range(NF):
        field.append(dense_embs(i, v, 'ffm_%d' % f))
    x = stack(field, axis=1)
    for a in range(NF):
        for b in range(a + 1, NF):
            p = squeeze(slice(x, axes=[1, 2], starts=[b, a], ends=[b + 1, a + 1]), [1, 2]) * squeeze(slice(x, axes=[1, 2], starts=[a, b], ends=[a + 1, b + 1]), [1, 2])
            outs = p if isinstance(outs, int) else outs + p
    return first_order(i, v) + reduce_sum(outs, 1, keep_dim=True)


def nfm(i, v, l):
    e = dense_embs(i, v)
    bi = 0.5 * (square(reduce_sum(e, 1)) - reduce_sum(square(e), 1))
    bi = batch_norm(bi, name='bi_bn')
    return first_order(i, v) + fc(mlp(bi, args.layer_sizes), 1)


def afm(i, v, l):
    e = dense_embs(i, v)
    rows = [squeeze(t, [1]) for t in split(e, NF, dim=1)]
    pairs = stack([rows[a] * rows[b] for a in range(NF) for b in range(a + 1, NF)], axis=1)
    n = NF * (NF - 1) // 2
    aw = create_parameter([K, 3], 'float32', name='attention_w')
    ab = create_parameter([3], 'float32', name='attention_b', is_bias=True)
    h = create_parameter([3, 1], 'float32', name='attention_h')
    t = relu(elementwise_add(matmul(reshape(pairs, [-1, K]), aw), ab))
    s = softmax(reshape(matmul(t, h), [-1, n]))
    pooled = reduce_sum(elementwise_mul(pairs, s, axis=0), 1)
    p = create_parameter([K, 1], 'float32', name='p')
    return first_order(i, v) + matmul(pooled, p)


def pnn(i, v, l):
    e = dense_embs(i, v)
    inner = matmul(e, e, transpose_y=True)
    idx = [a * NF + b for a in range(NF) for b in range(a + 1, NF)]
    inner = transpose(gather(transpose(reshape(inner, [-1, NF * NF]), [1, 0]), assign(np.array(idx, 'int32'))), [1, 0])
    s = reduce_sum(e, 1)
    outer = matmul(reshape(s, [-1, K, 1]), reshape(s, [-1, 1, K]))
    x = concat([reshape(e, [-1, NF * K]), inner, reshape(outer, [-1, K * K])], 1)
    return fc(mlp(x, args.layer_sizes), 1)


def fnn(i, v, l):
    return fc(mlp(concat([reshape(dense_embs(i, v), [-1, NF * K]), first_order(i, v)], 1), args.layer_sizes), 1)


def autoint(i, v, l):
    x = dense_embs(i, v)
    for k in range(2):
        q, kk, vv = [fc(x, 6, num_flatten_dims=2, bias_attr=False, act='relu', name='att_%d_%s' % (k, n)) for n in 'qkv']
        sp = lambda t: transpose(reshape(t, [0, 0, 2, 3]), [0, 2, 1, 3])
        a = softmax(matmul(sp(q), sp(kk), transpose_y=True, alpha=3 ** -.5))
        o = reshape(transpose(matmul(a, sp(vv)), [0, 2, 1, 3]), [0, 0, 6])
        x = relu(o + fc(x, 6, num_flatten_dims=2, bias_attr=False, name='res_%d' % k))
    return fc(reshape(x, [-1, NF * 6]), 1)


def fgcnn(i, v, l):
    e = dense_embs(i, v)
    x = unsqueeze(e, [1])
    new = []
    for k, c in enumerate((3, 4)):
        x = conv2d(x, c, filter_size=(3, 1), padding=(1, 0), act='tanh', name='fg_%d' % k)
        x = pool2d(x, pool_size=(2, 1), pool_stride=(2, 1), pool_type='max', ceil_mode=True)
        flat = flatten(x, axis=1)
        new.append(reshape(fc(flat, 2 * K, act='tanh', name='recomb_%d' % k), [-1, 2, K]))
    a = concat([e] + new, 1)
    n = NF + 4
    prod = reshape(matmul(a, a, transpose_y=True), [-1, n * n])
    return fc(mlp(concat([reshape(a, [-1, n * K]), prod], 1), args.layer_sizes), 1)


def xdeepfm(i, v, l):
    e = dense_embs(i, v)
    Xs = [e]
    last = NF
    for k, s in enumerate((4, 5)):
        X0 = reshape(transpose(e, [0, 2, 1]), [-1, K, NF, 1])
        Xk = reshape(transpose(Xs[-1], [0, 2, 1]), [-1, K, 1, last])
        z = reshape(matmul(X0, Xk), [-1, K, NF * last])
        z = transpose(z, [0, 2, 1])
        z = reshape(z, [-1, NF * last, 1, K])
        z = conv2d(z, s, filter_size=(1, 1), bias_attr=False, param_attr=fluid.ParamAttr(name='cin_%d' % k))
        Xs.append(reshape(z, [-1, s, K]))
        last = s
    y = reduce_sum(concat(Xs[1:], 1), -1)
    return first_order(i, v) + fc(y, 1) + fc(mlp(reshape(e, [-1, NF * K]), args.layer_sizes), 1)


def dcn(i, v, l):
    x0 = reshape(dense_embs(i, v), [-1, NF * K])
    x = x0
    for k in range(3):
        w = create_parameter([NF * K], 'float32', attr=fluid.ParamAttr(name='cross_w_%d' % k))
        b = create_parameter([NF * K], 'float32', attr=fluid.ParamAttr(name='cross_b_%d' % k), is_bias=True)
        x = elementwise_add(x0 * reduce_sum(elementwise_mul(x, w, axis=1), dim=1, keep_dim=True), b) + x
    reg = sums([reduce_sum(square(fluid.default_main_program().global_block().var('cross_w_%d' % k))) for k in range(3)])
    return fc(concat([x, mlp(x0, args.layer_sizes)], 1), 1), 1e-3 * reg


def din(i, v, l):
    seq, tgt = slice(i, [1], [0], [NF - 1]), slice(i, [1], [NF - 1], [NF])
    h = embedding(seq, [NV + 1, K], param_attr='item_emb'); h = reshape(h, [-1, NF - 1, K])
    t = reshape(embedding(tgt, [NV + 1, K], param_attr='item_emb'), [-1, 1, K])
    te = expand(t, [1, NF - 1, 1])
    mask = (1.0 - cast(equal(reshape(seq, [-1, NF - 1, 1]), fill_constant([1], 'int64', 0)), 'float32')) * -0. if False else cast(reshape(seq, [-1, NF - 1, 1]) > 0, 'float32')
    a = fc(concat([h, te, h - te, h * te], -1), 5, num_flatten_dims=2, act='sigmoid', name='att')
    a = fc(a, 1, num_flatten_dims=2, name='att2') - (1 - mask) * 1e9
    w = softmax(scale(transpose(a, [0, 2, 1]), K ** -.5))
    u = reshape(matmul(w, h), [-1, K])
    return fc(mlp(concat([u, reshape(t, [-1, K])], 1), [5], act='sigmoid'), 1)


def towers(i, v, l, gates):
    x = reshape(dense_embs(i, v), [-1, NF * K])
    ex = [fc(x, 5, act='relu', name='expert_%d' % k, bias_attr=fluid.ParamAttr(learning_rate=1.0)) for k in range(3)]
    outs = []
    for g in range(2):
        if gates:
            gate = fc(x, 3, act='softmax', name='gate_%d' % g)
            t = reduce_sum(elementwise_mul(reshape(concat(ex, 1), [-1, 3, 5]), gate, axis=0), 1)
        else:
            t = ex[0]
        t = fc(t, 4, act='relu', name='tower_%d' % g)
        p = fc(t, 2, act='softmax', name='out_%d' % g)
        outs.append(clip(p, min=1e-15, max=1.0 - 1e-15))
    return outs


def mmoe(i, v, l): return towers(i, v, l, True)
def share_bottom(i, v, l): return towers(i, v, l, False)


def esmm(i, v, l):
    e = sequence_free = reshape(dense_embs(i, v), [-1, NF * K])
    ctr, cvr = [fc(mlp(e, [6], n), 2, act='softmax', name=n + '_o') for n in ('ctr', 'cvr')]
    c, r = slice(ctr, [1], [1], [2]), slice(cvr, [1], [1], [2])
    ctcvr = elementwise_mul(c, r)
    two = concat([elementwise_sub(fill_constant_batch_size_like(ctcvr, [-1, 1], 'float32', 1.), ctcvr), ctcvr], 1)
    return [ctr, two]


def ncf(i, v, l):
    u, it = slice(i, [1], [0], [1]), slice(i, [1], [1], [2])
    mu, mi, du, di = [flatten(embedding(t, [NV + 1, K], param_attr=fluid.ParamAttr(name=n, regularizer=fluid.regularizer.L2Decay(1e-3))), 1) for t, n in ((u, 'MF_u'), (it, 'MF_i'), (u, 'MLP_u'), (it, 'MLP_i'))]
    return fc(concat([mu * mi, mlp(concat([du, di], 1), [4, 3])], -1), 1, param_attr=fluid.initializer.MSRAInitializer(uniform=True))


def reader(seed, n, B):
    r = np.random.RandomState(seed)
    for _ in list(range(n)):
        idx = r.randint(0, NV + 1, (B, NF, 1)).astype('int64')
        val = r.rand(B, NF).astype('float32')
        yield idx, val, ((idx.sum((1, 2)) % 2).reshape(-1, 1)).astype('float32')


def run(name, net):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        i, v, l = inputs()
        out = net(i, v, l)
        extra = None
        if isinstance(out, tuple):
            out, extra = out
        li = cast(l, 'int64')
        if isinstance(out, list):
            losses = [reduce_mean(cross_entropy(p, li)) for p in out]
            cost = losses[0] + losses[1]
            aucs = []
            for p in out:
                a, b, st = auc(input=p, label=li, num_thresholds=2 ** 12)
                aucs += [a, b]
        else:
            predict = sigmoid(out)
            cost = reduce_mean(log_loss(predict, l, epsilon=1e-7)) if name in ('fm', 'nfm', 'afm') else reduce_mean(sigmoid_cross_entropy_with_logits(out, l))
            a, b, (sp, sn, p1, n1) = auc(input=concat([1.0 - predict, predict], 1), label=li, num_thresholds=2 ** 12, slide_steps=3)
            aucs = [a, b]
        if extra is not None:
            cost = cost + extra
        test = main.clone(for_test=True)
        opt = {0: fluid.optimizer.SGD(args.lr), 1: fluid.optimizer.Adam(args.lr, lazy_mode=True), 2: fluid.optimizer.Adagrad(args.lr), 3: fluid.optimizer.Ftrl(args.lr, l1=1e-4, l2=1e-4)}[len(name) % 4]
        opt.minimize(cost)
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        exe = fluid.Executor(fluid.CPUPlace())
        exe.run(startup)
        feeder = fluid.DataFeeder(feed_list=[i.name, v.name, l.name], place=fluid.CPUPlace(), program=main)
        for k, (a_, b_, c_) in enumerate(reader(1, args.steps, args.batch_size)):
            o = exe.run(main, feed=feeder.feed(list(zip(a_, b_, c_))), fetch_list=[cost] + aucs)
            print(name, k, ' '.join('%.5f' % float(np.mean(x)) for x in o))
        d = 'model/%s' % name
        fluid.save(main, d)
        for v_ in main.list_vars():
            if v_.persistable and ('auc' in v_.name or 'stat' in v_.name):
                t = scope.find_var(v_.name).get_tensor()
                t.set(np.zeros(t.shape(), 'int64'), fluid.CPUPlace())
        for a_, b_, c_ in reader(2, 2, args.batch_size):
            o = exe.run(test, feed={'feat_idx': a_, 'feat_value': b_, 'label': c_}, fetch_list=[cost] + aucs)
        print(name, 'test', ' '.join('%.5f' % float(np.mean(x)) for x in o))
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        fluid.load(main, d, exe)
        for a_, b_, c_ in reader(2, 1, args.batch_size):
            o = exe.run(test, feed={'feat_idx': a_, 'feat_value': b_, 'label': c_}, fetch_list=[cost])
        print(name, 'loaded %.5f' % float(o[0]), len(fluid.load_program_state(d)))



for net in (fm, ffm, nfm, afm, pnn, fnn, autoint, fgcnn, xdeepfm, dcn, din, mmoe, share_bottom, esmm, ncf):
    net.__name__ = str(net.__name__)
    f = lambda net=net: run(net.__name__, net)
    f.__name__ = net.__name__
    section(f)
