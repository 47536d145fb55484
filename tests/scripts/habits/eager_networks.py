"""Imperative BERT, Transformer with beam search, attention OCR, ResNet with loaders, YOLO's loss; saved, loaded, traced, converted."""
from __future__ import division, print_function
import math, os, time
import numpy as np
import paddle
import paddle.fluid as fluid
import paddle.fluid.layers as layers
from paddle.fluid.dygraph import Layer, to_variable, Linear, Conv2D, BatchNorm, Pool2D, Embedding, LayerNorm, LayerList, Sequential, Dropout, GRUUnit, declarative, TracedLayer, ProgramTranslator
from paddle.fluid.dygraph.base import to_variable
from kit import section, show, drawn, attempt


def det(m, s=1.0):
    for n, p in m.named_parameters():
        if len(p.shape) > 1:
            p.set_value(drawn(n, p.shape, s))


def dy(f):
    def g():
        with fluid.dygraph.guard(fluid.CPUPlace()):
            fluid.default_startup_program().random_seed = 1
            f()
    g.__name__ = f.__name__
    return section(g)


class MultiHeadAttentionLayer(Layer):
    def __init__(self, d_key, d_value, d_model, n_head, dropout_rate, cache=None, name=""):
        super(MultiHeadAttentionLayer, self).__init__()
        self._n_head, self._d_key, self._d_value, self._d_model = n_head, d_key, d_value, d_model
        self._dropout_rate = dropout_rate
        pa = lambda n: fluid.ParamAttr(name=name + n + '.w_0', initializer=fluid.initializer.TruncatedNormal(scale=0.02))
        self._q_fc = Linear(d_model, d_key * n_head, param_attr=pa("_query_fc"), bias_attr=name + "_query_fc.b_0")
        self._k_fc = Linear(d_model, d_key * n_head, param_attr=pa("_key_fc"), bias_attr=name + "_key_fc.b_0")
        self._v_fc = Linear(d_model, d_value * n_head, param_attr=pa("_value_fc"), bias_attr=name + "_value_fc.b_0")
        self._proj_fc = Linear(d_value * n_head, d_model, param_attr=pa("_output_fc"), bias_attr=name + "_output_fc.b_0")

    def forward(self, queries, keys=None, values=None, attn_bias=None, cache=None):
        keys = queries if keys is None else keys
        values = keys if values is None else values
        q, k, v = self._q_fc(queries), self._k_fc(keys), self._v_fc(values)
        q = layers.transpose(layers.reshape(q, [0, 0, self._n_head, self._d_key]), [0, 2, 1, 3])
        k = layers.transpose(layers.reshape(k, [0, 0, self._n_head, self._d_key]), [0, 2, 1, 3])
        v = layers.transpose(layers.reshape(v, [0, 0, self._n_head, self._d_value]), [0, 2, 1, 3])
        if cache is not None:
            k = layers.concat([cache['k'], k], axis=2)
            v = layers.concat([cache['v'], v], axis=2)
            cache['k'], cache['v'] = k, v
        product = layers.matmul(x=q, y=k, transpose_y=True, alpha=self._d_key ** -0.5)
        if attn_bias is not None:
            product += attn_bias
        weights = layers.softmax(product)
        if self._dropout_rate:
            weights = layers.dropout(weights, dropout_prob=self._dropout_rate, dropout_implementation="upscale_in_train", is_test=False)
        out = layers.matmul(weights, v)
        out = layers.transpose(out, [0, 2, 1, 3])
        return self._proj_fc(layers.reshape(out, [0, 0, self._n_head * self._d_value]))


class PrePost(Layer):
    def __init__(self, cmd, d_model, rate, name):
        super(PrePost, self).__init__()
        self.cmd = cmd
        self.functors = []
        for c in cmd:
            if c == "a":
                self.functors.append(lambda x, y: x + y if y is not None else x)
            elif c == "n":
                self.functors.append(self.add_sublayer(name + "_layer_norm", LayerNorm(normalized_shape=d_model, param_attr=fluid.ParamAttr(name=name + "_layer_norm_scale", initializer=fluid.initializer.Constant(1.)),
                                                                                         bias_attr=fluid.ParamAttr(name=name + "_layer_norm_bias", initializer=fluid.initializer.Constant(0.)))))
            elif c == "d":
                self.functors.append(lambda x: layers.dropout(x, dropout_prob=rate, dropout_implementation="upscale_in_train", is_test=False) if rate else x)

    def forward(self, x, residual=None):
        for i, c in enumerate(self.cmd):
            x = self.functors[i](x, residual) if c == "a" else self.functors[i](x)
        return x


class EncoderSub(Layer):
    def __init__(self, d, h, inner, act, pre, post, name):
        super(EncoderSub, self).__init__()
        self.p1 = PrePost(pre, d, 0., name + '_pre_att'); self.att = MultiHeadAttentionLayer(d // h, d // h, d, h, 0., name=name + '_multi_head_att'); self.q1 = PrePost(post, d, 0., name + '_post_att')
        self.p2 = PrePost(pre, d, 0., name + '_pre_ffn')
        self.i2h = Linear(d, inner, param_attr=name + '_ffn_fc_0.w_0', bias_attr=name + '_ffn_fc_0.b_0', act=act); self.h2o = Linear(inner, d, param_attr=name + '_ffn_fc_1.w_0', bias_attr=name + '_ffn_fc_1.b_0')
        self.q2 = PrePost(post, d, 0., name + '_post_ffn')

    def forward(self, x, bias):
        a = self.q1(self.att(self.p1(x), None, None, bias), x)
        return self.q2(self.h2o(self.i2h(self.p2(a))), a)


class BertModelLayer(Layer):
    def __init__(self, config, return_pooled_out=True, use_fp16=False):
        super(BertModelLayer, self).__init__()
        self._d, self._n = config['hidden_size'], config['num_hidden_layers']
        ini = fluid.initializer.TruncatedNormal(scale=config['initializer_range'])
        self._src_emb = Embedding(size=[config['vocab_size'], self._d], param_attr=fluid.ParamAttr(name='word_embedding', initializer=ini), dtype='float32')
        self._pos_emb = Embedding(size=[config['max_position_embeddings'], self._d], param_attr=fluid.ParamAttr(name='pos_embedding', initializer=ini))
        self._sent_emb = Embedding(size=[config['type_vocab_size'], self._d], param_attr=fluid.ParamAttr(name='sent_embedding', initializer=ini))
        self.pre = PrePost('nd', self._d, 0., 'pre_encoder')
        self._encoder = [self.add_sublayer('layer_%d' % i, EncoderSub(self._d, 2, self._d * 4, 'gelu', '', 'dan', 'encoder_layer_%d' % i)) for i in range(self._n)]
        self.pooled_fc = Linear(self._d, self._d, param_attr=fluid.ParamAttr(name="pooled_fc.w_0", initializer=ini), bias_attr="pooled_fc.b_0", act="tanh")

    def forward(self, src_ids, position_ids, sentence_ids, input_mask):
        emb = self._src_emb(src_ids) + self._pos_emb(position_ids) + self._sent_emb(sentence_ids)
        x = self.pre(emb)
        mask = fluid.layers.matmul(x=input_mask, y=input_mask, transpose_y=True)
        mask = fluid.layers.scale(x=mask, scale=10000.0, bias=-1.0, bias_after_scale=False)
        mask = fluid.layers.stack(x=[mask] * 2, axis=1)
        mask.stop_gradient = True
        for e in self._encoder:
            x = e(x, mask)
        first = fluid.layers.slice(input=x, axes=[1], starts=[0], ends=[1])
        first = fluid.layers.reshape(x=first, shape=[-1, self._d])
        return x, self.pooled_fc(first)


class ClsModel(Layer):
    def __init__(self, config, num_labels, is_training=True):
        super(ClsModel, self).__init__()
        self.bert_layer = BertModelLayer(config)
        self.cls_fc = Linear(config['hidden_size'], num_labels, param_attr=fluid.ParamAttr(name="cls_out_w", initializer=fluid.initializer.TruncatedNormal(scale=0.02)), bias_attr=fluid.ParamAttr(name="cls_out_b", initializer=fluid.initializer.Constant(0.)))

    def forward(self, data_ids):
        src_ids, position_ids, sentence_ids, input_mask, labels = data_ids
        _, next_sent_feat = self.bert_layer(src_ids, position_ids, sentence_ids, input_mask)
        cls_feats = fluid.layers.dropout(x=next_sent_feat, dropout_prob=0.0, dropout_implementation="upscale_in_train")
        logits = self.cls_fc(cls_feats)
        ce_loss, probs = fluid.layers.softmax_with_cross_entropy(logits=logits, label=labels, return_softmax=True)
        loss = fluid.layers.mean(x=ce_loss)
        num_seqs = fluid.layers.create_tensor(dtype='int64')
        accuracy = fluid.layers.accuracy(input=probs, label=labels, total=num_seqs)
        return loss, accuracy, num_seqs


def bert_batch(r, B=3, S=5):
    mask = np.ones((B, S, 1), 'f'); mask[0, 3:] = 0
    return [r.randint(0, 20, (B, S)), np.tile(np.arange(S), (B, 1)), r.randint(0, 2, (B, S)), mask, r.randint(0, 3, (B, 1))]


@dy
def bert_finetune():
    cfg = dict(hidden_size=8, num_hidden_layers=2, vocab_size=20, max_position_embeddings=8, type_vocab_size=2, initializer_range=.02)
    model = ClsModel(cfg, 3); det(model, .6)
    print([n for n, _ in model.named_parameters()][::6], [p.name for p in model.parameters()][::6])
    sched = fluid.layers.noam_decay(1 / (4 * (0.01 ** 2)), 4)
    opt = fluid.optimizer.Adam(learning_rate=fluid.dygraph.NoamDecay(1 / (4 * (0.01 ** 2)), 4), parameter_list=model.parameters(), grad_clip=fluid.clip.GradientClipByGlobalNorm(clip_norm=1.0))
    r = np.random.RandomState(0)
    for i in range(4):
        batch = [to_variable(a) for a in bert_batch(r)]
        for b in batch: b.stop_gradient = True
        loss, acc, n = model(batch)
        loss.backward()
        opt.minimize(loss)
        model.clear_gradients()
        print(i, loss.numpy().round(4), acc.numpy().round(3), n.numpy(), round(float(opt.current_step_lr()), 6))
    fluid.save_dygraph(model.state_dict(), "bert_ft")
    fluid.save_dygraph(opt.state_dict(), "bert_ft")
    para, st = fluid.load_dygraph("bert_ft")
    print(len(para), sorted(st)[:3], len(st))
    m2 = model
    det(m2, .1)
    m2.set_dict(para)
    m2.eval()
    b = [to_variable(a) for a in bert_batch(np.random.RandomState(9))]
    with fluid.dygraph.no_grad():
        print(m2(b)[0].numpy().round(4))


class DecoderSub(Layer):
    def __init__(self, d, h, inner, name):
        super(DecoderSub, self).__init__()
        self.n = [PrePost('n', d, 0., name + '_p%d' % i) for i in range(3)]
        for i, l in enumerate(self.n): self.add_sublayer('n%d' % i, l)
        self.self_att = MultiHeadAttentionLayer(d // h, d // h, d, h, 0., name=name + '_s'); self.cross = MultiHeadAttentionLayer(d // h, d // h, d, h, 0., name=name + '_c')
        self.f1 = Linear(d, inner, act='relu'); self.f2 = Linear(inner, d)

    def forward(self, x, enc, self_bias, cross_bias, cache=None):
        x = x + self.self_att(self.n[0](x), None, None, self_bias, cache)
        x = x + self.cross(self.n[1](x), enc, enc, cross_bias)
        return x + self.f2(self.f1(self.n[2](x)))


class TransformerNet(Layer):
    def __init__(self, V=15, d=8, h=2, n=2):
        super(TransformerNet, self).__init__()
        self.d, self.h, self.V = d, h, V
        self.emb = Embedding([V, d], padding_idx=0); self.pos = Embedding([16, d], param_attr=fluid.ParamAttr(name='pos', trainable=False, initializer=fluid.initializer.NumpyArrayInitializer(np.sin(np.arange(128).reshape(16, 8) / 7.).astype('f'))))
        self.enc = LayerList([EncoderSub(d, h, 16, 'relu', 'n', 'a', 'e%d' % i) for i in range(n)])
        self.dec = LayerList([DecoderSub(d, h, 16, 'd%d' % i) for i in range(n)])

    def encode(self, src, spos, bias):
        e = layers.scale(self.emb(src), self.d ** .5)
        p = self.pos(spos); p.stop_gradient = True
        x = e + p
        for l in self.enc: x = l(x, bias)
        return x

    def decode(self, trg, tpos, enc, sb, cb, caches=None):
        x = layers.scale(self.emb(trg), self.d ** .5) + self.pos(tpos)
        for i, l in enumerate(self.dec): x = l(x, enc, sb, cb, caches[i] if caches else None)
        return layers.matmul(x, self.emb.weight, transpose_y=True)

    def forward(self, src, spos, sb, trg, tpos, tb, cb):
        return self.decode(trg, tpos, self.encode(src, spos, sb), tb, cb)

    def beam_search(self, src, spos, sb, bos=1, eos=2, beam=3, max_len=6):
        B, S = src.shape
        enc = self.encode(src, spos, sb)
        enc = layers.reshape(layers.expand(layers.unsqueeze(enc, [1]), [1, beam, 1, 1]), [-1, S, self.d])
        cb = layers.reshape(layers.expand(layers.unsqueeze(sb, [1]), [1, beam, 1, 1, 1]), [-1, self.h, 1, S])
        caches = [{'k': layers.zeros([B * beam, self.h, 0, self.d // self.h], 'float32') if False else None, 'v': None} for _ in self.dec]
        tokens = np.full((B * beam, 1), bos, 'int64'); score = to_variable(np.tile(np.array([[0.] + [-1e9] * (beam - 1)], 'f'), (B, 1)))
        finished = np.zeros((B * beam, 1), 'bool')
        out = tokens
        for t in range(max_len):
            T = out.shape[1]
            tb = np.triu(np.ones((T, T)), 1) * -1e9
            logits = self.decode(to_variable(out), to_variable(np.tile(np.arange(T), (B * beam, 1))), enc, to_variable(np.tile(tb.reshape(1, 1, T, T), (B * beam, self.h, 1, 1)).astype('f')), cb)
            last = layers.slice(logits, [1], [T - 1], [T])
            logp = layers.log(layers.softmax(layers.reshape(last, [-1, self.V])))
            fin = np.full((1, self.V), -1e9, 'f'); fin[0, eos] = 0
            f = to_variable(finished.astype('f'))
            logp = layers.elementwise_mul(logp, 1 - f, axis=0) + layers.matmul(f, to_variable(fin))
            total = layers.elementwise_add(logp, layers.reshape(score, [-1, 1]), axis=0)
            score, ids = layers.topk(layers.reshape(total, [-1, beam * self.V]), beam)
            flat = ids.numpy()
            parent = (flat // self.V + np.arange(B).reshape(-1, 1) * beam).reshape(-1); tok = flat % self.V
            out = np.concatenate([out[parent], tok.reshape(-1, 1)], 1)
            finished = finished[parent] | (tok.reshape(-1, 1) == eos)
            if finished.all(): break
        return out.reshape(B, beam, -1), score


def masks(src, trg, h=2):
    B, S = src.shape; T = trg.shape[1]
    sb = np.tile(np.where(src == 0, -1e9, 0).reshape(B, 1, 1, S), (1, h, 1, 1)).astype('f')
    tb = np.tile((np.triu(np.ones((T, T)), 1) * -1e9).reshape(1, 1, T, T), (B, h, 1, 1)).astype('f')
    return np.tile(sb, (1, 1, S, 1)), tb, np.tile(sb, (1, 1, T, 1)), sb


@dy
def transformer():
    net = TransformerNet(); det(net, .7)
    opt = fluid.optimizer.AdamOptimizer(learning_rate=fluid.dygraph.NoamDecay(8, 4, learning_rate=1.) if False else fluid.dygraph.NoamDecay(8, 4), beta1=.9, beta2=.997, epsilon=1e-9, parameter_list=net.parameters())
    r = np.random.RandomState(4)
    src = r.randint(3, 15, (2, 5)); src[1, 4:] = 0
    trg = r.randint(3, 15, (2, 4)); trg[:, 0] = 1
    lab = np.concatenate([trg[:, 1:], [[2], [2]]], 1).reshape(-1, 1)
    w = np.ones((8, 1), 'f'); w[7] = 0
    sb, tb, cb, one = masks(src, trg)
    v = [to_variable(a) for a in (src, np.tile(np.arange(5), (2, 1)), sb, trg, np.tile(np.arange(4), (2, 1)), tb, cb)]
    for i in range(5):
        logits = layers.reshape(net(*v), [-1, 15])
        soft = layers.label_smooth(layers.one_hot(to_variable(lab), 15), epsilon=.1)
        cost = layers.softmax_with_cross_entropy(logits, soft, soft_label=True)
        weighted = cost * to_variable(w)
        s = layers.reduce_sum(weighted); n = layers.reduce_sum(to_variable(w)); n.stop_gradient = True
        avg = s / n
        avg.backward(); opt.minimize(avg); net.clear_gradients()
        print(avg.numpy().round(4), s.numpy().round(3))
    net.eval()
    with fluid.dygraph.no_grad():
        seq, sc = net.beam_search(v[0], v[1], to_variable(one))
    print(seq.tolist(), sc.numpy().round(3).tolist())


class OCRAttention(Layer):
    def __init__(self, C=6, D=8, V=7):
        super(OCRAttention, self).__init__()
        self.convs = [self.add_sublayer('c%d' % i, l) for i, l in enumerate([Conv2D(1, 4, 3, padding=1, param_attr=fluid.ParamAttr(regularizer=fluid.regularizer.L2Decay(4e-4)), bias_attr=False), BatchNorm(4, act='relu'), Pool2D(2, 'max', 2), Conv2D(4, C, 3, padding=1), Pool2D([2, 1], 'max', [2, 1])])]
        self.fw, self.bw = Linear(C * 2, 3 * D, bias_attr=False), Linear(C * 2, 3 * D, bias_attr=False)
        self.gf, self.gb = GRUUnit(size=D * 3, activation='relu', origin_mode=True), GRUUnit(size=D * 3, activation='relu')
        self.D, self.V = D, V
        self.enc = Linear(2 * D, D, bias_attr=False); self.boot = Linear(D, D, bias_attr=False, act='relu')
        self.state, self.score = Linear(D, D, bias_attr=False), Linear(D, 1, bias_attr=False)
        self.i1, self.i2 = Linear(2 * D, 3 * D), Linear(D, 3 * D, bias_attr=False)
        self.gru = GRUUnit(size=D * 3); self.out = Linear(D, V + 2)
        self.emb = Embedding([V + 2, D])

    def direction(self, x, fc, cell, reverse):
        seq = fc(x)
        T = seq.shape[1]
        h = to_variable(np.zeros((x.shape[0], self.D), 'f'))
        res = []
        for i in range(T):
            i_ = T - 1 - i if reverse else i
            inp = layers.reshape(seq[:, i_:i_ + 1, :], [-1, seq.shape[2]], inplace=False)
            h, _, _ = cell(inp, h)
            res.append(layers.reshape(h, [-1, 1, self.D], inplace=False))
        return layers.concat(res[::-1] if reverse else res, axis=1)

    def forward(self, image, label):
        x = image
        for l in self.convs: x = l(x)
        x = layers.transpose(x, [0, 3, 1, 2])
        x = layers.reshape(x, [-1, x.shape[1], x.shape[2] * x.shape[3]], inplace=False)
        f = self.direction(x, self.fw, self.gf, False); b = self.direction(x, self.bw, self.gb, True)
        enc = layers.concat([f, b], 2); proj = self.enc(enc)
        h = self.boot(b[:, 0])
        e = self.emb(label)
        preds = []
        for t in range(label.shape[1]):
            s = layers.unsqueeze(self.state(h), [1])
            s = layers.expand(s, [1, proj.shape[1], 1])
            a = self.score(layers.tanh(layers.elementwise_add(proj, s)))
            a = layers.softmax(layers.reshape(a, [a.shape[0], a.shape[1]], inplace=False))
            ctx = layers.reduce_sum(layers.elementwise_mul(x=enc, y=a, axis=0), dim=1)
            h, _, _ = self.gru(layers.elementwise_add(self.i1(ctx), self.i2(e[:, t])), h)
            preds.append(layers.reshape(layers.softmax(self.out(h)), [-1, 1, self.V + 2]))
        return layers.concat(preds, 1)


@dy
def ocr_attention():
    m = OCRAttention(); det(m, .8)
    opt = fluid.optimizer.Momentum(learning_rate=fluid.layers.piecewise_decay([2, 4], [.1, .01, .001]), momentum=.9, parameter_list=m.parameters(), regularization=fluid.regularizer.L2Decay(1e-3))
    r = np.random.RandomState(3)
    img = to_variable(r.rand(2, 1, 8, 12).astype('f')); li = to_variable(r.randint(0, 9, (2, 4))); lo = to_variable(r.randint(0, 9, (2, 4, 1)))
    mask = to_variable(np.array([[1, 1, 1, 0], [1, 1, 1, 1]], 'f'))
    for i in range(4):
        p = m(img, li)
        loss = layers.cross_entropy(layers.reshape(p, [-1, 9]), layers.reshape(lo, [-1, 1]))
        loss = layers.elementwise_mul(loss, layers.reshape(mask, [-1, 1]), axis=0)
        avg = layers.reduce_sum(loss)
        avg.backward(); opt.minimize(avg); m.clear_gradients()
        print(avg.numpy().round(4), opt.current_step_lr())
    m.eval()
    show(m(img, li).numpy())


class BottleneckBlock(Layer):
    def __init__(self, cin, c, stride, shortcut=True):
        super(BottleneckBlock, self).__init__()
        mk = lambda i, o, k, s=1, a=None: (Conv2D(i, o, k, s, (k - 1) // 2, act=None, bias_attr=False), BatchNorm(o, act=a))
        self.c0, self.b0 = mk(cin, c, 1, 1, 'relu'); self.c1, self.b1 = mk(c, c, 3, stride, 'relu'); self.c2, self.b2 = mk(c, c * 4, 1)
        if not shortcut: self.sc, self.sb = mk(cin, c * 4, 1, stride)
        self.shortcut = shortcut

    def forward(self, x):
        y = self.b2(self.c2(self.b1(self.c1(self.b0(self.c0(x))))))
        s = x if self.shortcut else self.sb(self.sc(x))
        y = layers.elementwise_add(x=s, y=y)
        return fluid.layer_helper.LayerHelper(self.full_name(), act='relu').append_activation(y)


class ResNet(Layer):
    def __init__(self, classes=5):
        super(ResNet, self).__init__()
        self.conv, self.bn, self.pool = Conv2D(3, 8, 3, 2, 1, act=None, bias_attr=False), BatchNorm(8, act='relu'), Pool2D(3, 'max', 2, 1)
        self.blocks = []
        cin = 8
        for b in range(2):
            short = False
            for i in range(2):
                self.blocks.append(self.add_sublayer('bb_%d_%d' % (b, i), BottleneckBlock(cin, 4 * (b + 1), 2 if i == 0 and b else 1, short)))
                cin = 16 * (b + 1); short = True
        self.avg = Pool2D(pool_size=7, pool_type='avg', global_pooling=True)
        std = 1.0 / math.sqrt(32.)
        self.out = Linear(32, classes, act='softmax', param_attr=fluid.param_attr.ParamAttr(initializer=fluid.initializer.Uniform(-std, std)))

    @declarative
    def forward(self, x, label):
        y = self.pool(self.bn(self.conv(x)))
        for b in self.blocks: y = b(y)
        y = layers.reshape(self.avg(y), [-1, 32])
        y = self.out(y)
        return layers.mean(layers.cross_entropy(y, label)), y


def resnet(convert):
    pt = ProgramTranslator(); pt.enable(convert)
    try:
        m = ResNet(); det(m, .7)
        opt = fluid.optimizer.Momentum(.01, .9, parameter_list=m.parameters(), regularization=fluid.regularizer.L2Decay(1e-4))
        r = np.random.RandomState(0)

        def reader():
            rr = np.random.RandomState(1)
            for _ in range(7): yield rr.rand(3, 16, 16).astype('f'), rr.randint(0, 5, (1,))
        loader = fluid.io.DataLoader.from_generator(capacity=4, use_multiprocess=False)
        loader.set_sample_list_generator(paddle.batch(reader, 2, drop_last=True), places=fluid.CPUPlace())
        for epoch in range(2):
            for i, data in enumerate(loader()):
                img, lab = data
                lab.stop_gradient = True
                if convert:
                    loss, out = m(img, lab)
                else:
                    loss, out = m(img, lab)
                acc = layers.accuracy(out, lab, k=2)
                loss.backward(); opt.minimize(loss); m.clear_gradients()
                if i == 0 and epoch == 0: print(loss.numpy().round(4))
                print(epoch, i, loss.shape, acc.shape)
        m.eval()
        print(m(to_variable(r.rand(2, 3, 16, 16).astype('f')), to_variable(np.array([[1], [2]])))[0].shape)
    finally:
        pt.enable(True)


@dy
def resnet_eager():
    resnet(False)


@dy
def resnet_converted():
    resnet(True)
