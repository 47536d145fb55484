"""Image translation: pix2pix, SPADE, StarGAN, AttGAN."""
from __future__ import print_function
import functools
import numpy as np
import six
import paddle.fluid as fluid
from kit import draw_when_started, section, show
draw_when_started()


def norm_layer(input, norm_type='batch_norm', name=None, is_test=False, affine=True):
    if norm_type == 'batch_norm':
        param_attr = fluid.ParamAttr(name=name + '_w', initializer=fluid.initializer.Constant(1.0))
        bias_attr = fluid.ParamAttr(name=name + '_b', initializer=fluid.initializer.Constant(value=0.0))
        return fluid.layers.batch_norm(input, param_attr=param_attr, bias_attr=bias_attr, is_test=is_test, moving_mean_name=name + '_mean', moving_variance_name=name + '_var')
    elif norm_type == 'instance_norm':
        helper = fluid.layer_helper.LayerHelper("instance_norm", **locals())
        dtype = helper.input_dtype()
        epsilon = 1e-5
        mean = fluid.layers.reduce_mean(input, dim=[2, 3], keep_dim=True)
        var = fluid.layers.reduce_mean(fluid.layers.square(input - mean), dim=[2, 3], keep_dim=True)
        scale_param = fluid.ParamAttr(name=name + "_w" if name else None, initializer=fluid.initializer.Constant(1.0), trainable=True)
        offset_param = fluid.ParamAttr(name=name + "_b" if name else None, initializer=fluid.initializer.Constant(0.0), trainable=True)
        scale = helper.create_parameter(attr=scale_param, shape=input.shape[1:2], dtype=dtype)
        offset = helper.create_parameter(attr=offset_param, shape=input.shape[1:2], dtype=dtype)
        tmp = fluid.layers.elementwise_mul(x=(input - mean), y=scale, axis=1)
        tmp = tmp / fluid.layers.sqrt(var + epsilon)
        return fluid.layers.elementwise_add(tmp, offset, axis=1)
    raise NotImplementedError("norm tyoe: [%s] is not support" % norm_type)


def conv2d(input, num_filters=64, filter_size=7, stride=1, stddev=0.02, padding=0, name="conv2d", norm=None, act=None, relufactor=0.0, use_bias=False, padding_type=None, initial="normal", is_test=False):
    if padding != 0 and padding_type is None:
        input = fluid.layers.pad2d(input, [padding] * 4, mode='reflect')
        padding = 0
    param_attr = fluid.ParamAttr(name=name + "_w", initializer=fluid.initializer.Normal(loc=0.0, scale=stddev))
    bias_attr = fluid.ParamAttr(name=name + "_b", initializer=fluid.initializer.Constant(0.0)) if use_bias else False
    conv = fluid.layers.conv2d(input, num_filters, filter_size, name=name, stride=stride, padding=padding, use_cudnn=False, param_attr=param_attr, bias_attr=bias_attr)
    if norm is not None:
        conv = norm_layer(input=conv, norm_type=norm, name=name + "_norm", is_test=is_test)
    if act == 'relu':
        conv = fluid.layers.relu(conv, name=name + '_relu')
    elif act == 'leaky_relu':
        conv = fluid.layers.leaky_relu(conv, alpha=relufactor, name=name + '_leaky_relu')
    elif act == 'tanh':
        conv = fluid.layers.tanh(conv, name=name + '_tanh')
    return conv


def deconv2d(input, num_filters=64, filter_size=7, stride=1, padding=0, outpadding=[0, 0, 0, 0], name="deconv2d", norm=None, act=None, use_bias=False, output_size=None):
    deconv = fluid.layers.conv2d_transpose(input, num_filters, output_size=output_size, name=name, filter_size=filter_size, stride=stride, padding=padding, use_cudnn=False,
                                           param_attr=fluid.ParamAttr(name=name + "_w", initializer=fluid.initializer.Normal(scale=0.02)), bias_attr=fluid.ParamAttr(name=name + "_b") if use_bias else False)
    if np.mean(outpadding) != 0 and output_size is None:
        deconv = fluid.layers.pad2d(deconv, paddings=outpadding, mode='constant', pad_value=0.0)
    if norm is not None:
        deconv = norm_layer(input=deconv, norm_type=norm, name=name + "_norm")
    if act is not None:
        deconv = getattr(fluid.layers, act)(deconv)
    return deconv


def unet(inputdata, name, ngf=4, downs=3, norm='instance_norm', is_test=False):
    def block(x, depth, outer):
        c = min(ngf * 2 ** depth, 16)
        n = name + '_d%d' % depth
        d = conv2d(x if outer else fluid.layers.leaky_relu(x, 0.2), c, 4, 2, 0.02, 1, name=n + '_down', norm=None if outer or depth == downs - 1 else norm, padding_type='zero')
        m = d if depth == downs - 1 else block(d, depth + 1, False)
        up = deconv2d(fluid.layers.relu(m), x.shape[1] if not outer else 3, 4, 2, 1, name=n + '_up', norm=None if outer else norm, use_bias=outer)
        if outer:
            return fluid.layers.tanh(up)
        up = fluid.layers.dropout(up, 0.0) if depth == 1 else up
        return fluid.layers.concat([x, up], 1)
    return block(inputdata, 0, True)


def patch(x, name, ndf=4, norm='instance_norm', is_test=False):
    x = conv2d(x, ndf, 4, 2, 0.02, 1, name=name + '_c1', use_bias=True, act='leaky_relu', relufactor=0.2, padding_type='zero')
    x = conv2d(x, ndf * 2, 4, 2, 0.02, 1, name=name + '_c2', norm=norm, act='leaky_relu', relufactor=0.2, padding_type='zero')
    return conv2d(x, 1, 4, 1, 0.02, 1, name=name + '_c3', use_bias=True, padding_type='zero')


class GTrainer():
    def __init__(self, input_A, input_B, gan_mode='vanilla', step_per_epoch=2):
        self.program = fluid.default_main_program().clone()
        with fluid.program_guard(self.program):
            self.fake_B = unet(input_A, 'generator')
            self.infer_program = self.program.clone()
            AB = fluid.layers.concat([input_A, self.fake_B], 1)
            self.pred = patch(AB, 'discriminator')
            if gan_mode == "lsgan":
                ones = fluid.layers.fill_constant_batch_size_like(input=self.pred, shape=self.pred.shape, value=1, dtype='float32')
                self.g_loss_gan = fluid.layers.reduce_mean(fluid.layers.square(fluid.layers.elementwise_sub(x=self.pred, y=ones)))
            else:
                shape = fluid.layers.shape(self.pred)
                ones = fluid.layers.fill_constant(shape=shape, value=1.0, dtype='float32')
                self.g_loss_gan = fluid.layers.mean(fluid.layers.sigmoid_cross_entropy_with_logits(x=self.pred, label=ones))
            self.g_loss_L1 = fluid.layers.reduce_mean(fluid.layers.abs(fluid.layers.elementwise_sub(x=input_B, y=self.fake_B))) * 100.
            self.g_loss = fluid.layers.elementwise_add(self.g_loss_L1, self.g_loss_gan)
            lr = 2e-4
            params = []
            for param in self.program.global_block().all_parameters():
                if param.name.startswith("generator"):
                    params.append(param.name)
            optimizer = fluid.optimizer.Adam(learning_rate=fluid.layers.piecewise_decay(boundaries=[1 * step_per_epoch], values=[lr, lr * .5]), beta1=0.5, beta2=0.999, name="net_G")
            optimizer.minimize(self.g_loss, parameter_list=params)


class DTrainer():
    def __init__(self, input_A, input_B, fake_B, mode):
        self.program = fluid.default_main_program().clone()
        with fluid.program_guard(self.program):
            self.real_AB = fluid.layers.concat([input_A, input_B], 1)
            self.fake_AB = fluid.layers.concat([input_A, fake_B], 1)
            pr = patch(self.real_AB, 'discriminator')
            pf = patch(self.fake_AB, 'discriminator')
            if mode == 'lsgan':
                self.loss = (fluid.layers.reduce_mean(fluid.layers.square(pr - 1.)) + fluid.layers.reduce_mean(fluid.layers.square(pf))) / 2.0
            else:
                one = fluid.layers.fill_constant_batch_size_like(input=pr, shape=pr.shape, value=1, dtype='float32')
                zero = fluid.layers.fill_constant_batch_size_like(input=pf, shape=pf.shape, value=0, dtype='float32')
                self.loss = 0.5 * (fluid.layers.mean(fluid.layers.sigmoid_cross_entropy_with_logits(x=pr, label=one)) + fluid.layers.mean(fluid.layers.sigmoid_cross_entropy_with_logits(x=pf, label=zero)))
            vars = [v.name for v in self.program.list_vars() if fluid.io.is_parameter(v) and v.name.startswith("discriminator")]
            fluid.optimizer.Adam(learning_rate=2e-4, beta1=0.5, beta2=0.999, name="net_D").minimize(self.loss, parameter_list=vars)


def pix2pix(mode):
    S = 16
    A = fluid.data(name='input_A', shape=[None, 3, S, S], dtype='float32')
    B = fluid.data(name='input_B', shape=[None, 3, S, S], dtype='float32')
    fake = fluid.data(name='input_fake', shape=[None, 3, S, S], dtype='float32')
    g = GTrainer(A, B, mode)
    d = DTrainer(A, B, fake, mode)
    loader = fluid.io.DataLoader.from_generator(feed_list=[A, B], capacity=4, iterable=True, use_double_buffer=True)
    r = np.random.RandomState(0)
    data = [[r.rand(3, S, S).astype('f') * 2 - 1, r.rand(3, S, S).astype('f') * 2 - 1] for _ in range(6)]
    loader.set_sample_list_generator(fluid.io.batch(lambda: iter(data), 2), places=fluid.cpu_places(1))
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    bs = fluid.BuildStrategy()
    bs.enable_inplace = False
    bs.memory_optimize = False
    gp = fluid.CompiledProgram(g.program).with_data_parallel(loss_name=g.g_loss.name, build_strategy=bs, places=fluid.cpu_places(1))
    dp = fluid.CompiledProgram(d.program).with_data_parallel(loss_name=d.loss.name, build_strategy=bs, places=fluid.cpu_places(1))
    for i, batch in enumerate(loader()):
        gl, l1, fb = exe.run(gp, fetch_list=[g.g_loss_gan, g.g_loss_L1, g.fake_B], feed=batch)
        feed = {'input_A': batch[0]['input_A'], 'input_B': batch[0]['input_B'], 'input_fake': fb}
        dl = exe.run(dp, fetch_list=[d.loss], feed=feed)[0]
        print(i, np.round(gl, 4), np.round(l1, 3), np.round(dl, 4))
    print(len(g.program.global_block().ops), [p.name for p in g.program.all_parameters()][::5])
    fluid.io.save_persistables(exe, "net_G", main_program=g.program)
    import os
    print(sorted(os.listdir("net_G"))[::6])


@section
def pix2pix_vanilla():
    pix2pix('vanilla')


@section
def pix2pix_lsgan():
    pix2pix('lsgan')


@section
def spade():
    """Spectral norm by the operator's own weight, SPADE normalisation with nearest resize, hinge loss, feature matching."""
    S, C = 16, 5

    def sn_conv(x, f, k, stride=1, padding=0, name=None, use_bias=True, use_sn=True):
        if not use_sn:
            return fluid.layers.conv2d(x, f, k, stride, padding, param_attr=fluid.ParamAttr(name=name + '_w'), bias_attr=fluid.ParamAttr(name=name + '_b') if use_bias else False)
        h = fluid.layer_helper.LayerHelper('conv_spectral_norm', input=x)
        w = h.create_parameter(attr=fluid.ParamAttr(name=name + '_weight_orig', initializer=fluid.initializer.Xavier()), shape=[f, x.shape[1], k, k], dtype='float32')
        w_sn = fluid.layers.spectral_norm(w, dim=0, power_iters=1, name=name + '_sn')
        out = h.create_variable_for_type_inference('float32')
        h.append_op(type='conv2d', inputs={'Input': x, 'Filter': w_sn}, outputs={'Output': out},
                    attrs={'strides': [stride] * 2, 'paddings': [padding] * 2, 'dilations': [1, 1], 'groups': 1, 'use_cudnn': False, 'use_mkldnn': False})
        if use_bias:
            b = h.create_parameter(attr=fluid.ParamAttr(name=name + '_bias'), shape=[f], dtype='float32', is_bias=True)
            out = fluid.layers.elementwise_add(out, b, axis=1)
        return out

    def SPADE(x, seg, c, name):
        n = fluid.layers.batch_norm(x, param_attr=fluid.ParamAttr(name=name+'_s', trainable=False), bias_attr=fluid.ParamAttr(name=name+'_o', trainable=False), moving_mean_name=name + '_mean', moving_variance_name=name + '_var')
        s = fluid.layers.resize_nearest(seg, out_shape=x.shape[2:], align_corners=False)
        a = fluid.layers.relu(fluid.layers.conv2d(s, 8, 3, padding=1, param_attr=fluid.ParamAttr(name=name + '_sh_w')))
        gamma = fluid.layers.conv2d(a, c, 3, padding=1, param_attr=fluid.ParamAttr(name=name + '_g_w'))
        beta = fluid.layers.conv2d(a, c, 3, padding=1, param_attr=fluid.ParamAttr(name=name + '_b_w'))
        return n * (1 + gamma) + beta

    def resblk(x, seg, fin, fout, name):
        mid = min(fin, fout)
        xs = x
        if fin != fout:
            xs = sn_conv(SPADE(x, seg, fin, name + '_ns'), fout, 1, name=name + '_cs', use_bias=False)
        d = sn_conv(fluid.layers.leaky_relu(SPADE(x, seg, fin, name + '_n0'), 0.2), mid, 3, padding=1, name=name + '_c0')
        d = sn_conv(fluid.layers.leaky_relu(SPADE(d, seg, mid, name + '_n1'), 0.2), fout, 3, padding=1, name=name + '_c1')
        return xs + d

    def G(seg):
        x = fluid.layers.resize_nearest(seg, out_shape=(4, 4), align_corners=False)
        x = fluid.layers.conv2d(x, 8, 3, padding=1, param_attr=fluid.ParamAttr(name='gen_fc_w'))
        x = resblk(x, seg, 8, 8, 'gen_head')
        x = fluid.layers.resize_nearest(x, scale=2, align_corners=False)
        x = resblk(x, seg, 8, 4, 'gen_up0')
        x = fluid.layers.resize_nearest(x, scale=2, align_corners=False)
        return fluid.layers.tanh(fluid.layers.conv2d(fluid.layers.leaky_relu(x, 0.2), 3, 3, padding=1, param_attr=fluid.ParamAttr(name='gen_out_w')))

    def D(x, name='dis'):
        feats = []
        for s in range(2):
            f = [fluid.layers.leaky_relu(sn_conv(x, 4, 4, 2, 2, '%s_%d_l0' % (name, s), use_sn=False), 0.2)]
            f.append(fluid.layers.leaky_relu(fluid.layers.instance_norm(sn_conv(f[-1], 8, 4, 2, 2, '%s_%d_l1' % (name, s)), param_attr=fluid.ParamAttr(name='%s_%d_in_s' % (name, s)), bias_attr=fluid.ParamAttr(name='%s_%d_in_b' % (name, s))), 0.2))
            f.append(sn_conv(f[-1], 1, 4, 1, 2, '%s_%d_out' % (name, s), use_sn=False))
            feats.append(f)
            x = fluid.layers.pool2d(x, pool_size=3, pool_type='avg', pool_stride=2, pool_padding=1)
        return feats

    lab = fluid.data('label', [None, C, S, S], 'float32')
    img = fluid.data('image', [None, 3, S, S], 'float32')
    gp, dp, st = fluid.Program(), fluid.Program(), fluid.default_startup_program()
    with fluid.program_guard(gp, st):
        with fluid.unique_name.guard():
            lab = fluid.data('label', [None, C, S, S], 'float32'); img = fluid.data('image', [None, 3, S, S], 'float32')
            fake = G(lab)
            fake.persistable = True
            both = fluid.layers.concat([fluid.layers.concat([lab, fake], 1), fluid.layers.concat([lab, img], 1)], 0)
            feats = D(both)
            gan = sum([-1 * fluid.layers.reduce_mean(fluid.layers.split(f[-1], 2, dim=0)[0]) for f in feats]) / 2
            fm = 0.
            for f in feats:
                for v in f[:-1]:
                    u, w = fluid.layers.split(v, num_or_sections=2, dim=0)
                    fm = fm + fluid.layers.reduce_mean(fluid.layers.abs(u - w)) * 10. / 2
            gl = gan + fm
            fluid.optimizer.Adam(1e-4, beta1=0., beta2=0.9, name='net_G').minimize(gl, parameter_list=[p for p in gp.all_parameters() if p.name.startswith('gen')])
    with fluid.program_guard(dp, st):
        with fluid.unique_name.guard():
            lab = fluid.data('label', [None, C, S, S], 'float32'); img = fluid.data('image', [None, 3, S, S], 'float32')
            fk = fluid.data('fake', [None, 3, S, S], 'float32')
            feats = D(fluid.layers.concat([fluid.layers.concat([lab, fk], 1), fluid.layers.concat([lab, img], 1)], 0))
            dl = 0
            for f in feats:
                pf, pr = fluid.layers.split(f[-1], 2, dim=0)
                minval = -1 * fluid.layers.relu(-1 * (-1. * pf - 1)) if False else fluid.layers.elementwise_min(-1. * pf - 1, fluid.layers.zeros_like(pf))
                dl = dl - fluid.layers.reduce_mean(minval) - fluid.layers.reduce_mean(fluid.layers.elementwise_min(pr - 1, fluid.layers.fill_constant_batch_size_like(pr, list(pr.shape), 'float32', 0.0)))
            fluid.optimizer.Adam(4e-4, beta1=0., beta2=0.9, name='net_D').minimize(dl, parameter_list=[p.name for p in dp.all_parameters() if p.name.startswith('dis')])
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(st)
    r = np.random.RandomState(3)
    for i in range(3):
        seg = np.eye(C, dtype='f')[r.randint(0, C, (2, S, S))].transpose(0, 3, 1, 2).copy()
        feed = {'label': seg, 'image': r.rand(2, 3, S, S).astype('f')}
        a, b, c = exe.run(gp, feed=feed, fetch_list=[gan, fm, fake])
        d, = exe.run(dp, feed=dict(feed, fake=c), fetch_list=[dl])
        print(np.round(a, 4), np.round(b, 4), np.round(d, 4))
        if i == 0: show(c)
    print([v.name for v in gp.list_vars() if v.persistable and 'sn' in v.name][:8])


@section
def stargan():
    """One discriminator with two heads, gradient penalty by fluid.gradients, labels spread over pixels."""
    S, K = 8, 3
    img, lorg, ltrg = fluid.data('img', [None, 3, S, S]), fluid.data('lorg', [None, K]), fluid.data('ltrg', [None, K])

    def G(x, c):
        c = fluid.layers.reshape(c, [-1, K, 1, 1])
        c = fluid.layers.expand(c, [1, 1, S, S])
        x = fluid.layers.concat([x, c], 1)
        x = conv2d(x, 6, 3, 1, padding=1, name='g_1', norm='instance_norm', act='relu', padding_type='zero')
        y = conv2d(x, 6, 3, 1, padding=1, name='g_2', norm='instance_norm', padding_type='zero')
        return fluid.layers.tanh(conv2d(x + y, 3, 3, 1, padding=1, name='g_3', padding_type='zero'))

    def D(x):
        x = conv2d(x, 6, 4, 2, padding=1, name='d_1', act='leaky_relu', relufactor=0.01, use_bias=True, padding_type='zero')
        src = conv2d(x, 1, 3, 1, padding=1, name='d_2', padding_type='zero')
        cls = fluid.layers.conv2d(x, K, S // 2, param_attr=fluid.ParamAttr(name='d_3_w'), bias_attr=False)
        return src, fluid.layers.reshape(cls, [cls.shape[0], K])

    def cls_loss(x, y):
        return fluid.layers.reduce_sum(fluid.layers.sigmoid_cross_entropy_with_logits(x, y)) / 2.

    main = fluid.default_main_program()
    gp, dp = main.clone(), main.clone()
    with fluid.program_guard(gp):
        img, lorg, ltrg = [gp.global_block().var(n) for n in ('img', 'lorg', 'ltrg')]
        fake = G(img, ltrg)
        rec = G(fake, lorg)
        s, c = D(fake)
        l = -1. * fluid.layers.mean(s) + 10. * fluid.layers.reduce_mean(fluid.layers.abs(img - rec)) + cls_loss(c, ltrg)
        fluid.optimizer.Adam(1e-3, beta1=0.5).minimize(l, parameter_list=[p.name for p in gp.all_parameters() if p.name.startswith('g_')])
    with fluid.program_guard(dp):
        img, lorg = [dp.global_block().var(n) for n in ('img', 'lorg')]
        fk = fluid.data('fake', [None, 3, S, S])
        a = fluid.data('alpha', [None, 1])
        sr, cr = D(img)
        sf, _ = D(fk)
        mix = fluid.layers.elementwise_mul(img, a, axis=0) + fluid.layers.elementwise_mul(fk, 1 - a, axis=0)
        sm, _ = D(mix)
        grad = fluid.gradients(inputs=[mix], targets=[sm])[0]
        grad = fluid.layers.reshape(grad, [-1, grad.shape[1] * grad.shape[2] * grad.shape[3]])
        norm = fluid.layers.sqrt(fluid.layers.reduce_sum(fluid.layers.square(grad), dim=1) + 1e-16)
        gpen = fluid.layers.reduce_mean(fluid.layers.square(norm - 1.0))
        dl = fluid.layers.mean(sf) - fluid.layers.mean(sr) + cls_loss(cr, lorg) + gpen * 10.
        fluid.optimizer.Adam(1e-3, beta1=0.5).minimize(dl, parameter_list=[p.name for p in dp.all_parameters() if p.name.startswith('d_')])
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    r = np.random.RandomState(1)
    for i in range(4):
        feed = {'img': r.rand(2, 3, S, S).astype('f'), 'lorg': r.randint(0, 2, (2, K)).astype('f'), 'ltrg': r.randint(0, 2, (2, K)).astype('f')}
        lv, f = exe.run(gp, feed=feed, fetch_list=[l, fake])
        d, g = exe.run(dp, feed={'img': feed['img'], 'lorg': feed['lorg'], 'fake': f, 'alpha': r.rand(2, 1).astype('f')}, fetch_list=[dl, gpen])
        print(np.round(lv, 4), np.round(d, 4), np.round(g, 4))
