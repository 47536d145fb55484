"""Graph networks by messages over edges (gather, scatter, sequences), session graphs, walks with shared embeddings."""
import numpy as np, os, sys, math, collections, random
import paddle.fluid as fluid
import paddle.fluid.layers as L
from functools import partial
from kit import draw_when_started, section
draw_when_started()


class GraphWrapper(object):
    """Holds data layers of a graph; feeds of a python graph."""

    def __init__(self, name, node_feat):
        self.name = name
        self._create(node_feat)

    def _create(self, node_feat):
        p = self.name + '/'
        self.num_nodes = L.data(p + 'num_nodes', shape=[1], append_batch_size=False, dtype='int64', stop_gradient=True)
        self.edges_src = L.data(p + 'edges_src', shape=[-1], append_batch_size=False, dtype='int64')
        self.edges_dst = L.data(p + 'edges_dst', shape=[-1], append_batch_size=False, dtype='int64')
        self.uniq_dst = L.data(p + 'uniq_dst', shape=[-1], append_batch_size=False, dtype='int64')
        self.uniq_dst_count = L.data(p + 'uniq_dst_count', shape=[-1], append_batch_size=False, dtype='int32')
        self.indegree = L.data(p + 'indegree', shape=[-1], append_batch_size=False, dtype='int64')
        self.node_feat = {k: L.data(p + 'node_feat/' + k, shape=s, append_batch_size=False, dtype=d) for k, s, d in node_feat}

    def to_feed(self, n, edges, feats):
        p = self.name + '/'
        edges = np.array(sorted(edges, key=lambda e: (e[1], e[0])), 'int64')
        uniq, count = np.unique(edges[:, 1], return_counts=True)
        ind = np.zeros(n, 'int64'); ind[uniq] = count
        f = {p + 'num_nodes': np.array([n], 'int64'), p + 'edges_src': edges[:, 0], p + 'edges_dst': edges[:, 1], p + 'uniq_dst': uniq, p + 'uniq_dst_count': np.concatenate([[0], np.cumsum(count)]).astype('int32'), p + 'indegree': ind}
        f.update({p + 'node_feat/' + k: v for k, v in feats.items()})
        return f

    def send(self, func, nfeat_list):
        src = {k: L.gather(v, self.edges_src, overwrite=False) for k, v in nfeat_list}
        dst = {k: L.gather(v, self.edges_dst, overwrite=False) for k, v in nfeat_list}
        return func(src, dst, {})

    def recv(self, msg, reduce_function):
        if reduce_function == 'sum':
            if isinstance(msg, dict):
                msg = msg['h']
            out_dim = msg.shape[-1]
            init = L.fill_constant_batch_size_like(input=self.indegree, shape=[-1, out_dim], value=0, dtype='float32')
            init.stop_gradient = False
            return scatter_add(init, self.edges_dst, msg)
        lod = {k: L.lod_reset(v, self.uniq_dst_count) for k, v in msg.items()} if isinstance(msg, dict) else L.lod_reset(msg, self.uniq_dst_count)
        out = reduce_function(lod)
        init = L.fill_constant_batch_size_like(input=self.indegree, shape=[-1, out.shape[-1]], value=0, dtype='float32')
        init.stop_gradient = False
        return L.scatter(init, self.uniq_dst, out)


def scatter_add(input, index, updates):
    return L.scatter(input, index, updates, overwrite=False)


def sequence_softmax(x):
    m = L.sequence_pool(x, 'max')
    x = x - L.sequence_expand_as(m, x)
    e = L.exp(x)
    s = L.sequence_expand_as(L.sequence_pool(e, 'sum'), x)
    return e / s


def gcn(gw, feature, hidden, act, name, norm=None):
    if feature.shape[-1] < hidden:
        if norm is not None:
            feature = feature * norm
        msg = gw.send(lambda s, d, e: s['h'], [('h', feature)])
        out = gw.recv(msg, 'sum')
        out = L.fc(out, hidden, bias_attr=False, param_attr=fluid.ParamAttr(name=name))
    else:
        feature = L.fc(feature, hidden, bias_attr=False, param_attr=fluid.ParamAttr(name=name))
        if norm is not None:
            feature = feature * norm
        out = gw.recv(gw.send(lambda s, d, e: s['h'], [('h', feature)]), 'sum')
    if norm is not None:
        out = out * norm
    b = L.create_parameter(shape=[hidden], dtype='float32', is_bias=True, name=name + '_bias')
    return getattr(L, act)(L.elementwise_add(out, b, axis=-1)) if act else L.elementwise_add(out, b)


def gat(gw, feature, hidden, act, name, heads=2):
    def send_attention(s, d, e):
        alpha = L.leaky_relu(s['left_a'] + d['right_a'], alpha=0.2)
        return {'alpha': alpha, 'h': s['h']}

    def reduce_attention(msg):
        alpha, h = msg['alpha'], msg['h']
        alpha = sequence_softmax(alpha)
        old_h = h
        h = L.reshape(h, [-1, heads, hidden])
        alpha = L.reshape(alpha, [-1, heads, 1])
        h = h * alpha
        h = L.reshape(h, [-1, heads * hidden])
        h = L.lod_reset(h, old_h)
        return L.sequence_pool(h, 'sum')
    ft = L.fc(feature, hidden * heads, bias_attr=False, param_attr=fluid.ParamAttr(name=name + '_weight'))
    la = L.create_parameter([heads, hidden], 'float32', name=name + '_gat_l_A')
    ra = L.create_parameter([heads, hidden], 'float32', name=name + '_gat_r_A')
    r = L.reshape(ft, [-1, heads, hidden])
    lv = L.reduce_sum(L.elementwise_mul(r, la, axis=1), -1)
    rv = L.reduce_sum(L.elementwise_mul(r, ra, axis=1), -1)
    msg = gw.send(send_attention, [('h', ft), ('left_a', lv), ('right_a', rv)])
    out = gw.recv(msg, reduce_attention)
    bias = L.create_parameter([hidden * heads], 'float32', is_bias=True, name=name + '_bias')
    bias.stop_gradient = True
    out = L.elementwise_add(out, bias)
    return getattr(L, act)(out) if act else out


def sage(gw, feature, hidden, act, name, how):
    def red(feat):
        return L.sequence_pool(feat, how)
    msg = gw.send(lambda s, d, e: s['h'], [('h', feature)])
    neigh = gw.recv(msg, red if how != 'lstm' else (lambda f: L.sequence_last_step(L.dynamic_lstm(L.fc(f, 16, bias_attr=False, name=name + 'x'), 16, use_peepholes=False, is_reverse=False, name=name + 'lstm')[0])))
    s = L.fc(feature, hidden, act=act, name=name + '_l')
    n = L.fc(neigh, hidden, act=act, name=name + '_r')
    return L.l2_normalize(L.concat([s, n], axis=1), axis=1)


def gin(gw, feature, hidden, name):
    eps = L.create_parameter([1, 1], 'float32', attr=fluid.ParamAttr(name=name + '_eps'), default_initializer=fluid.initializer.ConstantInitializer(0.1))
    msg = gw.send(lambda s, d, e: s['h'], [('h', feature)])
    out = gw.recv(msg, 'sum') + feature * (eps + 1.0)
    out = L.fc(out, hidden, act=None, name=name + '_0')
    out = L.layer_norm(out, begin_norm_axis=1, param_attr=fluid.ParamAttr(name='norm_scale_' + name, initializer=fluid.initializer.Constant(1.0)), bias_attr=fluid.ParamAttr(name='norm_bias_' + name))
    return L.fc(L.relu(out), hidden, act='relu', name=name + '_1')


def node_classification(kind):
    r = np.random.RandomState(1)
    n, F, C = 9, 5, 3
    edges = set((int(a), int(b)) for a, b in zip(r.randint(0, n, 22), r.randint(0, n, 22))) | set((i, i) for i in range(n - 1))
    feats = {'words': r.rand(n, F).astype('float32')}
    train_index = np.array([[0], [2], [4], [7]], 'int64')
    labels = r.randint(0, C, (4, 1)).astype('int64')
    train, startup, test = fluid.Program(), fluid.Program(), fluid.Program()
    with fluid.program_guard(train, startup):
        gw = GraphWrapper('graph', [('words', [-1, F], 'float32')])
        x = gw.node_feat['words']
        deg = L.cast(gw.indegree, 'float32')
        norm = L.reshape(L.pow(L.elementwise_max(deg, L.fill_constant([1], 'float32', 1.)), -0.5), [-1, 1])
        if kind == 'gcn':
            out = gcn(gw, gcn(gw, x, 8, 'relu', 'gcn_1', norm), C, None, 'gcn_2', norm)
        elif kind == 'gat':
            out = gat(gw, gat(gw, x, 4, 'elu', 'gat_1'), C, None, 'gat_2', heads=1)
        elif kind == 'gin':
            out = L.fc(gin(gw, gin(gw, x, 6, 'g1'), 6, 'g2'), C)
        else:
            out = L.fc(sage(gw, sage(gw, x, 4, 'relu', 's1', kind), 4, 'relu', 's2', kind), C)
        idx = L.data('node_index', [-1, 1], dtype='int64', append_batch_size=False)
        lab = L.data('node_label', [-1, 1], dtype='int64', append_batch_size=False)
        pred = L.gather(out, idx)
        loss, pred = L.softmax_with_cross_entropy(logits=pred, label=lab, return_softmax=True)
        acc = L.accuracy(input=pred, label=lab, k=1)
        loss = L.mean(loss)
        test = train.clone(for_test=True)
        fluid.optimizer.Adam(learning_rate=0.05, regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=0.0005)).minimize(loss)
    with fluid.scope_guard(fluid.Scope()):
        exe = fluid.Executor(fluid.CPUPlace()); exe.run(startup)
        feed = gw.to_feed(n, edges, feats); feed['node_index'] = train_index; feed['node_label'] = labels
        for e in range(4):
            l, a = exe.run(train, feed=feed, fetch_list=[loss, acc], return_numpy=True)
            t = exe.run(test, feed=feed, fetch_list=[loss.name, out.name])
            print(kind, e, '%.5f %.3f %.5f' % (l[0], a[0], t[0][0]), np.abs(t[1]).sum().round(4))


class Session(object):
    def __init__(self, raw, batch):
        self.raw, self.batch = raw, batch

    def make_data(self, cur):
        max_len = max(len(e[0]) for e in cur)
        max_uniq = max(len(np.unique(e[0])) for e in cur)
        out = []
        for seq, lab in cur:
            items = np.unique(seq)
            m = {v: i for i, v in enumerate(items)}
            adj_in = np.zeros((max_uniq, max_uniq)); adj_out = np.zeros((max_uniq, max_uniq))
            for a, b in zip(seq[:-1], seq[1:]):
                adj_in[m[b]][m[a]] = 1; adj_out[m[a]][m[b]] = 1
            adj_in = adj_in / np.maximum(adj_in.sum(0), 1); adj_out = (adj_out.T / np.maximum(adj_out.sum(1), 1)).T if False else adj_out / np.maximum(adj_out.sum(1, keepdims=True), 1)
            pad = list(items) + [0] * (max_uniq - len(items))
            idx = [m[v] for v in seq] + [0] * (max_len - len(seq))
            mask = [[1.] for _ in seq] + [[0.]] * (max_len - len(seq))
            out.append((np.array(pad).reshape(-1, 1).astype('int64'), np.array(idx).reshape(-1, 1).astype('int32'), np.array([len(seq) - 1], 'int32'), adj_in.astype('float32'), adj_out.astype('float32'), np.array(mask, 'float32'), np.array([lab], 'int64')))
        return out

    def reader(self):
        for i in range(0, len(self.raw), self.batch):
            yield self.make_data(self.raw[i:i + self.batch])


def srgnn(V=20, H=6, steps=2, B=3):
    stdv = 1.0 / math.sqrt(H)
    uni = lambda: fluid.initializer.UniformInitializer(low=-stdv, high=stdv)
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        items = fluid.data('items', [None, None, 1], 'int64') if False else L.data('items', [-1, -1, 1], append_batch_size=False, dtype='int64')
        seq_index = L.data('seq_index', [-1, -1, 1], append_batch_size=False, dtype='int32')
        last_index = L.data('last_index', [-1, 1], append_batch_size=False, dtype='int32')
        adj_in = L.data('adj_in', [-1, -1, -1], append_batch_size=False)
        adj_out = L.data('adj_out', [-1, -1, -1], append_batch_size=False)
        mask = L.data('mask', [-1, -1, 1], append_batch_size=False)
        label = L.data('label', [-1, 1], append_batch_size=False, dtype='int64')
        feeds = [items, seq_index, last_index, adj_in, adj_out, mask, label]
        loader = fluid.io.PyReader(capacity=4, feed_list=feeds, iterable=False)
        e = L.embedding(items, size=[V, H], padding_idx=0, param_attr=fluid.ParamAttr(name='emb', initializer=uni()))
        pre = L.reshape(e, [B, -1, H]) if False else e
        for _ in range(steps):
            st = L.reshape(pre, [-1, H]) if False else pre
            si = L.fc(st, H, num_flatten_dims=2, name='state_in', param_attr=fluid.ParamAttr(name='si_w', initializer=uni()), bias_attr='si_b')
            so = L.fc(st, H, num_flatten_dims=2, name='state_out', param_attr=fluid.ParamAttr(name='so_w', initializer=uni()), bias_attr='so_b')
            sa = L.concat([L.matmul(adj_in, si), L.matmul(adj_out, so)], axis=2)
            flat, h0 = L.reshape(sa, [-1, 2 * H]), L.reshape(pre, [-1, H])
            gi = L.fc(flat, 3 * H, name='gru_fc', param_attr='gru_w', bias_attr=False)
            h, _, _ = L.gru_unit(gi, h0, size=3 * H, param_attr='gru_u', bias_attr='gru_ub')
            pre = L.reshape(h, L.shape(pre)) if False else L.elementwise_add(L.reshape(h, shape=L.concat([L.cast(L.slice(L.shape(pre), [0], [0], [2]), 'int32'), L.fill_constant([1], 'int32', H)])), pre * 0.)
        flat = L.reshape(pre, [-1, H])
        bs = L.cast(L.slice(L.shape(items), [0], [0], [1]), 'int32'); un = L.cast(L.slice(L.shape(items), [0], [1], [2]), 'int32')
        base = L.reshape(L.range(0, B, 1, 'int32'), [-1, 1, 1]) * un
        pos = L.reshape(seq_index + base, [-1])
        seq = L.reshape(L.gather(flat, pos), [B, -1, H])
        lpos = last_index + L.reshape(L.range(0, B, 1, 'int32'), [-1, 1]) * L.cast(L.slice(L.shape(seq_index), [0], [1], [2]), 'int32')
        last = L.reshape(L.gather(L.reshape(seq, [-1, H]), L.reshape(lpos, [-1])), [B, 1, H])
        q1 = L.fc(seq, H, num_flatten_dims=2, bias_attr=False, name='sq'); q2 = L.fc(last, H, num_flatten_dims=2, name='lq')
        w = L.fc(L.sigmoid(q1 + q2), 1, num_flatten_dims=2, bias_attr=False) * mask
        g = L.reduce_sum(L.elementwise_mul(seq, w), 1)
        fin = L.fc(L.concat([g, L.squeeze(last, [1])], 1), H, bias_attr=False)
        all_v = L.embedding(L.assign(np.arange(1, V).reshape(-1, 1).astype('int64')), [V, H], param_attr=fluid.ParamAttr(name='emb'))
        logits = L.matmul(fin, all_v, transpose_y=True)
        lo = L.reduce_mean(L.softmax_with_cross_entropy(logits, label))
        acc = L.accuracy(input=logits, label=label, k=5)
        lr = L.exponential_decay(0.05, decay_steps=2, decay_rate=0.5, staircase=True)
        fluid.optimizer.Adam(lr, regularization=fluid.regularizer.L2DecayRegularizer(1e-5)).minimize(lo)
    exe = fluid.Executor(fluid.CPUPlace()); exe.run(startup)
    r = np.random.RandomState(4)
    raw = [(r.randint(1, V, r.randint(2, 6)).tolist(), int(r.randint(0, V - 1))) for _ in range(9)]
    d = Session(raw, B)

    def batches():
        for b in d.reader():
            yield [np.stack([s[k] for s in b]) for k in range(7)]
    loader.decorate_batch_generator(batches)
    for ep in range(2):
        loader.start()
        k = 0
        try:
            while True:
                o = exe.run(main, fetch_list=[lo, acc, lr]); print('srgnn', ep, k, [float('%.5f' % x[0]) for x in o]); k += 1
        except fluid.core.EOFException:
            loader.reset()


def deepwalk():
    r = random.Random(0)
    nr = np.random.RandomState(2)
    adj = {i: [(i + 1) % 12, (i + 3) % 12, (i * 2) % 12] for i in range(12)}
    walks = []
    for s in range(12):
        w = [s]
        for _ in range(4): w.append(r.choice(adj[w[-1]]))
        walks.append(w)
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        src = L.data('src', [1, 1], dtype='int64'); dst = L.data('dst', [1, 1], dtype='int64'); neg = L.data('neg', [3, 1], dtype='int64')
        e = partial(L.embedding, size=[12, 6], is_sparse=True, dtype='float32')
        es = e(src, param_attr=fluid.ParamAttr(name='content', initializer=fluid.initializer.UniformInitializer(-.5, .5)))
        w = fluid.ParamAttr(name='weight', initializer=fluid.initializer.Constant(0.1))
        wp, wn = e(dst, param_attr=w), e(neg, param_attr=w)
        ml = lambda a, b: L.matmul(a, b, transpose_y=True)
        pos, ng = L.squeeze(ml(es, wp), [1]), L.squeeze(ml(es, wn), [1])
        label1 = L.fill_constant_batch_size_like(pos, [-1, 1], 'float32', 1); label0 = L.fill_constant_batch_size_like(ng, [-1, 3], 'float32', 0)
        label0.stop_gradient = True
        ls = L.reduce_mean(L.sigmoid_cross_entropy_with_logits(pos, label1)) + L.reduce_mean(L.reduce_sum(L.sigmoid_cross_entropy_with_logits(ng, label0), 1))
        fluid.optimizer.SGD(L.polynomial_decay(0.5, 6, 0.05, 1)).minimize(ls)
    exe = fluid.Executor(fluid.CPUPlace()); exe.run(startup)
    for it in range(5):
        pairs = [(w[i], w[j]) for w in walks[it:it + 4] for i in range(5) for j in range(max(0, i - 2), min(5, i + 3)) if i != j]
        a = np.array(pairs, 'int64')
        print('deepwalk %.5f' % exe.run(main, feed={'src': a[:, :1, None], 'dst': a[:, 1:, None], 'neg': nr.randint(0, 12, (len(a), 3, 1)).astype('int64')}, fetch_list=[ls])[0][0])
    fluid.io.save_params(exe, 'dw', main, filename='paddle_model'); print(os.listdir('dw'))
    emb = np.array(fluid.global_scope().find_var('content').get_tensor()); n = emb / np.linalg.norm(emb, axis=1, keepdims=True)
    print(np.argsort(-n @ n.T, 1)[:4, :4].tolist())



@section
def nodes():
    for kind in ("gcn", "gat", "gin", "sum", "average", "max", "lstm"):
        node_classification(kind)


section(srgnn)
section(deepwalk)
