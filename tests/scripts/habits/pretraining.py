"""A BERT that is pretrained (recomputed, decayed by surgery), saved, and tuned for classes, spans and tags; read by py_reader."""
import argparse, collections, os, re, sys, six, json, multiprocessing, math
import numpy as np
import paddle.fluid as fluid
import paddle.fluid.layers as L


class ArgumentGroup(object):
    def __init__(self, parser, title, des):
        self._group = parser.add_argument_group(title=title, description=des)

    def add_arg(self, name, type, default, help, **kw):
        type = (lambda v: v.lower() in ('true', 't', '1')) if type == bool else type
        self._group.add_argument('--' + name, default=default, type=type, help=help + ' Default: %(default)s.', **kw)


parser = argparse.ArgumentParser(__doc__)
g = ArgumentGroup(parser, 'model', 'model configuration and paths.')
g.add_arg('epochs', int, 2, 'epochs'); g.add_arg('use_recompute', bool, False, 'recompute'); g.add_arg('learning_rate', float, 5e-3, 'lr'); g.add_arg('weight_decay', float, .01, 'wd'); g.add_arg('warmup_proportion', float, .3, 'warm')
args = parser.parse_args()
CFG = json.loads('{"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 30, "max_position_embeddings": 8, "type_vocab_size": 2, "hidden_act": "gelu", "initializer_range": 0.02}')
from kit import draw_when_started, section
place = fluid.CPUPlace()
draw_when_started()


class BertModel(object):
    def __init__(self, src, pos, sent, mask, cfg, shared=False):
        self.c = cfg
        self.init = fluid.initializer.TruncatedNormal(scale=cfg['initializer_range'])
        self.checkpoints = []
        e = L.embedding(src, [cfg['vocab_size'], cfg['hidden_size']], param_attr=self.attr('word_embedding')) + L.embedding(pos, [cfg['max_position_embeddings'], cfg['hidden_size']], param_attr=self.attr('pos_embedding')) + L.embedding(sent, [2, cfg['hidden_size']], param_attr=self.attr('sent_embedding'))
        e = self.post(None, e, 'nd', 'pre_encoder')
        m = L.matmul(x=mask, y=mask, transpose_y=True); m = L.scale(x=m, scale=10000., bias=-1., bias_after_scale=False)
        m = L.stack([m] * cfg['num_attention_heads'], axis=1); m.stop_gradient = True
        for i in range(cfg['num_hidden_layers']):
            e = self.layer(e, m, 'encoder_layer_%d' % i); self.checkpoints.append(e)
        self.out = e

    def attr(self, n): return fluid.ParamAttr(name=n, initializer=self.init)

    def post(self, prev, out, cmd, name):
        for c in cmd:
            if c == 'a': out = out + prev if prev is not None else out
            elif c == 'n':
                out = L.layer_norm(out, begin_norm_axis=len(out.shape) - 1, param_attr=fluid.ParamAttr(name=name + '_layer_norm_scale', initializer=fluid.initializer.Constant(1.)), bias_attr=fluid.ParamAttr(name=name + '_layer_norm_bias', initializer=fluid.initializer.Constant(0.)))
            elif c == 'd': out = L.dropout(out, dropout_prob=0., dropout_implementation='upscale_in_train', is_test=False)
        return out

    def fc(self, x, n, name, act=None):
        return L.fc(x, n, num_flatten_dims=2, act=act, param_attr=self.attr(name + '.w_0'), bias_attr=name + '.b_0')

    def layer(self, x, mask, name):
        d, n = self.c['hidden_size'], self.c['num_attention_heads']
        q, k, v = [self.fc(x, d, '%s_multi_head_att_%s_fc' % (name, t)) for t in ('query', 'key', 'value')]
        sp = lambda t: L.transpose(L.reshape(t, shape=[0, 0, n, d // n], inplace=True), perm=[0, 2, 1, 3])
        w = L.softmax(L.matmul(L.scale(sp(q), (d // n) ** -.5), sp(k), transpose_y=True) + mask)
        w = L.dropout(w, 0., dropout_implementation='upscale_in_train')
        c = L.reshape(L.transpose(L.matmul(w, sp(v)), [0, 2, 1, 3]), [0, 0, d], inplace=True)
        a = self.post(x, self.fc(c, d, name + '_multi_head_att_output_fc'), 'dan', name + '_post_att')
        f = self.fc(self.fc(a, 4 * d, name + '_ffn_fc_0', act=self.c['hidden_act']), d, name + '_ffn_fc_1')
        return self.post(a, f, 'dan', name + '_post_ffn')

    def pooled(self):
        return L.fc(L.slice(self.out, axes=[1], starts=[0], ends=[1]), self.c['hidden_size'], act='tanh', param_attr=self.attr('pooled_fc.w_0'), bias_attr='pooled_fc.b_0')

    def pretrain(self, label, pos, nsp):
        pos = L.cast(pos, 'int32')
        f = L.gather(L.reshape(self.out, [-1, self.c['hidden_size']]), pos)
        t = L.fc(f, self.c['hidden_size'], act=self.c['hidden_act'], param_attr=self.attr('mask_lm_trans_fc.w_0'), bias_attr=fluid.ParamAttr(name='mask_lm_trans_fc.b_0'))
        t = self.post(None, t, 'n', 'mask_lm_trans')
        b = L.create_parameter(shape=[self.c['vocab_size']], dtype='float32', attr=fluid.ParamAttr(name='mask_lm_out_fc.b_0', initializer=fluid.initializer.Constant(0.)), is_bias=True)
        out = L.elementwise_add(L.matmul(t, fluid.default_main_program().global_block().var('word_embedding'), transpose_y=True), b)
        lm = L.mean(L.softmax_with_cross_entropy(logits=out, label=label))
        nf = L.fc(self.pooled(), 2, param_attr=self.attr('next_sent_fc.w_0'), bias_attr='next_sent_fc.b_0')
        nl, ns = L.softmax_with_cross_entropy(nf, nsp, return_softmax=True)
        return L.mean(nl) + lm, lm, L.accuracy(ns, nsp)


def optimization(loss, warm, total, main, startup, amp=False, checkpoints=None):
    def lr_fn():
        with fluid.default_main_program()._lr_schedule_guard():
            lr = L.tensor.create_global_var(shape=[1], value=0., dtype='float32', persistable=True, name='scheduled_learning_rate')
            gs = L.learning_rate_scheduler._decay_step_counter()
            with L.control_flow.Switch() as sw:
                with sw.case(gs < warm): L.tensor.assign(args.learning_rate * (gs / warm), lr)
                with sw.default(): L.tensor.assign(L.learning_rate_scheduler.polynomial_decay(args.learning_rate, total, 0., 1., cycle=False), lr)
            return lr
    lr = lr_fn()
    opt = fluid.optimizer.Adam(learning_rate=lr)
    fluid.clip.set_gradient_clip(clip=fluid.clip.GradientClipByGlobalNorm(clip_norm=1.0))
    if checkpoints:
        opt = fluid.optimizer.RecomputeOptimizer(opt); opt._set_checkpoints(checkpoints)
    scale = None
    if amp:
        opt = fluid.contrib.mixed_precision.decorate(opt, amp_lists=fluid.contrib.mixed_precision.AutoMixedPrecisionLists(custom_white_list={'layer_norm', 'softmax', 'gelu'}), init_loss_scaling=128., incr_every_n_steps=2, use_dynamic_loss_scaling=True)
    plist = dict()
    for p in main.global_block().all_parameters():
        plist[p.name] = p * 1.0
        plist[p.name].stop_gradient = True
    _, pg = opt.minimize(loss)
    if args.weight_decay > 0:
        for p, gr in pg:
            n = p.name[:-len('.master')] if p.name.endswith('.master') else p.name
            if 'layer_norm' in n or n.endswith('_bias') or n.endswith('.b_0'): continue
            with p.block.program._optimized_guard([p, gr]), fluid.framework.name_scope('weight_decay'):
                L.assign(output=p, input=p - plist[p.name] * args.weight_decay * lr)
    return lr, (opt.get_loss_scaling() if amp else None)


def base_inputs(S):
    return [L.data(n, [-1, S, 1], append_batch_size=False, dtype=d) for n, d in (('src_ids', 'int64'), ('pos_ids', 'int64'), ('sent_ids', 'int64'), ('input_mask', 'float32'))]


def batch(r, B, S, extra):
    ln = r.randint(3, S + 1, B)
    return [r.randint(0, 30, (B, S, 1)).astype('int64'), np.tile(np.arange(S)[None, :, None], (B, 1, 1)).astype('int64'), r.randint(0, 2, (B, S, 1)).astype('int64'), (np.arange(S)[None] < ln[:, None]).astype('float32')[:, :, None]] + extra(r, B, S, ln)


def task(name, heads, extra, B=4, S=6, amp=False, recompute=False, fetch_test=None):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 3
    test = fluid.Program()
    with fluid.program_guard(test, fluid.Program()), fluid.unique_name.guard():
        ins = base_inputs(S)
        more, outs, infer = heads(BertModel(*ins, cfg=CFG), S)
    t_outs, t_infer, test = outs, infer, test.clone(for_test=True)
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        py_reader = fluid.layers.py_reader(capacity=4, shapes=[list(v.shape) for v in ins + more], dtypes=['int64' if v.dtype == fluid.core.VarDesc.VarType.INT64 else 'float32' for v in ins + more], lod_levels=[0] * len(ins + more), name=name + '_reader', use_double_buffer=True)
        vs = fluid.layers.read_file(py_reader)
        names = [v.name for v in ins + more]
        bert = BertModel(*vs[:4], cfg=CFG)
        old_data, it = L.data, iter(vs[4:])
        L.data = lambda *a, **k: next(it)
        more, outs, infer = heads(bert, S)
        L.data = old_data
        lr, ls = optimization(outs[0], 2, 8, main, startup, amp, bert.checkpoints if recompute else None)
    exe = fluid.Executor(place)
    if True:
        exe.run(startup)
        r = np.random.RandomState(5)
        if os.path.isdir('pretrained') and name != 'pretrain':
            def existed_params(var):
                if not isinstance(var, fluid.framework.Parameter): return False
                return os.path.exists(os.path.join('pretrained', var.name))
            fluid.io.load_vars(exe, 'pretrained', main_program=startup, predicate=existed_params)
            print('Load pretraining parameters from pretrained', len([v for v in startup.list_vars() if existed_params(v)]))

        def gen():
            rr = np.random.RandomState(6)
            for _ in range(3): yield batch(rr, B, S, extra)
        py_reader.decorate_tensor_provider(gen)
        bs = fluid.BuildStrategy(); bs.fuse_all_optimizer_ops = False; es = fluid.ExecutionStrategy(); es.num_iteration_per_drop_scope = 1
        prog = fluid.CompiledProgram(main).with_data_parallel(loss_name=outs[0].name, build_strategy=bs, exec_strategy=es, places=[place])
        steps = 0
        for ep in range(args.epochs):
            py_reader.start()
            try:
                while True:
                    o = exe.run(prog, fetch_list=[v.name for v in outs] + [lr.name] + ([ls.name] if ls is not None else []))
                    steps += 1
                    print(name, steps, ' '.join('%.5f' % np.mean(v) for v in o))
            except fluid.core.EOFException:
                py_reader.reset()
            b = batch(np.random.RandomState(9), B, S, extra)
            o = exe.run(test, feed=dict(zip(names, b)), fetch_list=[v.name for v in t_outs])
            print(name, 'eval', ' '.join('%.5f' % np.mean(np.array(v)) for v in o))
        fluid.io.save_params(exe, 'pretrained' if name == 'pretrain' else name + '_params', main)
        fluid.io.save_inference_model(name + '_inf', [v.name for v in ins], t_infer, exe, test, model_filename='__model__', params_filename='__params__')
        p, fn, ft = fluid.io.load_inference_model(name + '_inf', exe, '__model__', '__params__')
        q = exe.run(p, feed=dict(zip(fn, b)), fetch_list=ft)
        print(name, 'infer', [v.shape for v in q], ['%.4f' % np.abs(v).sum() for v in q], [op.type for op in p.global_block().ops].count('dropout'))


_task = task


def task(*a, **k):
    with fluid.scope_guard(fluid.Scope()):
        _task(*a, **k)


def pretrain_heads(b, S):
    lab, pos, nsp = L.data('mask_label', [-1, 1], append_batch_size=False, dtype='int64'), L.data('mask_pos', [-1, 1], append_batch_size=False, dtype='int64'), L.data('nsp', [-1, 1], append_batch_size=False, dtype='int64')
    loss, lm, acc = b.pretrain(lab, pos, nsp)
    return [lab, pos, nsp], [loss, lm, acc], [b.out]


def pretrain_extra(r, B, S, ln):
    k = 5
    return [r.randint(0, 30, (k, 1)).astype('int64'), r.randint(0, B * S, (k, 1)).astype('int64'), r.randint(0, 2, (B, 1)).astype('int64')]


def cls_heads(b, S):
    lab = L.data('label', [-1, 1], append_batch_size=False, dtype='int64')
    lg = L.fc(b.pooled(), 3, param_attr=fluid.ParamAttr(name='cls_out_w', initializer=b.init), bias_attr=fluid.ParamAttr(name='cls_out_b', initializer=fluid.initializer.Constant(0.)))
    ce, pr = L.softmax_with_cross_entropy(lg, lab, return_softmax=True)
    n = L.create_tensor(dtype='int64')
    return [lab], [L.mean(ce), L.accuracy(pr, lab, total=n), n], [L.softmax(lg)]


def mrc_heads(b, S):
    st, en = [L.data(n, [-1, 1], append_batch_size=False, dtype='int64') for n in ('start', 'end')]
    lg = L.fc(b.out, 2, num_flatten_dims=2, param_attr=fluid.ParamAttr(name='cls_squad_out_w', initializer=b.init), bias_attr='cls_squad_out_b')
    lg = L.transpose(lg, [2, 0, 1]); s, e = L.unstack(lg, axis=0)
    f = lambda l, p: L.mean(L.softmax_with_cross_entropy(l, p))
    ls, le = f(s, st), f(e, en)
    return [st, en], [(ls + le) / 2., ls, le], [s, e]


def tag_heads(b, S):
    lab = L.data('tags', [-1, S, 1], append_batch_size=False, dtype='int64'); ln = L.data('seq_lens', [-1, 1], append_batch_size=False, dtype='int64')
    em = L.fc(b.out, 4, num_flatten_dims=2, param_attr='cls_seq_w', bias_attr='cls_seq_b')
    ll = L.linear_chain_crf(em, lab, param_attr=fluid.ParamAttr(name='crfw', learning_rate=.5), length=L.reshape(ln, [-1]))
    path = L.crf_decoding(em, param_attr=fluid.ParamAttr(name='crfw'), length=L.reshape(ln, [-1]))
    _, _, f1, ni, nl, nc = L.chunk_eval(path, L.squeeze(lab, [2]) if False else lab, chunk_scheme='IOB', num_chunk_types=2, seq_length=L.reshape(ln, [-1])) if False else (None,) * 6
    return [lab, ln], [L.mean(ll), path], [em]


def classes(n, hi): return lambda r, B, S, ln: [r.randint(0, hi, (B, 1)).astype('int64') for _ in range(n)]


@section
def pretrain(): task('pretrain', pretrain_heads, pretrain_extra, recompute=True)


@section
def classify(): task('cls', cls_heads, classes(1, 3))


@section
def spans(): task('mrc', mrc_heads, classes(2, 3))


@section
def tags(): task('tagging', tag_heads, lambda r, B, S, ln: [r.randint(0, 4, (B, S, 1)).astype('int64'), ln.reshape(-1, 1).astype('int64')])
