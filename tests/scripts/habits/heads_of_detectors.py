"""Heads of detectors: faces with context, cascades over balanced pyramids, centres, mixed images, text regions, joints."""
import numpy as np, os, sys, math
import paddle.fluid as fluid
import paddle.fluid.layers as L
from paddle.fluid.param_attr import ParamAttr
from paddle.fluid.initializer import Xavier, Normal, Constant, Bilinear
from paddle.fluid.regularizer import L2Decay
from kit import draw_when_started, section
place = fluid.CPUPlace()
draw_when_started()
R = np.random.RandomState


def T(a, l): return fluid.create_lod_tensor(a, [l], place)


def run(name, build, feeds, steps=3, fetch_test=None):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        out = build()
    exe = fluid.Executor(place)
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        r = R(len(name))
        for i in range(steps):
            o = exe.run(main, feed=feeds(r), fetch_list=out['train'], return_numpy=False)
            print(name, i, ['%.4f' % np.array(v).astype('float64').sum() for v in o], [v.lod() for v in o if v.lod()])
        if 'test' in out:
            for p, f in out['test']:
                o = exe.run(p, feed={k: v for k, v in feeds(r).items() if p.global_block().has_var(k)}, fetch_list=f, return_numpy=False)
                print(name, 'test', [(np.array(v).shape, '%.4f' % np.array(v).astype('float64').sum(), v.lod()) for v in o])


def conv(x, c, k, s=1, act='relu', name=None, bn=False, g=1):
    y = L.conv2d(x, c, k, s, (k - 1) // 2, groups=g, act=None if bn else act, param_attr=ParamAttr(name=name and name + '_w', initializer=Xavier(fan_out=k * k * c)), bias_attr=False if bn else ParamAttr(name=name and name + '_b', learning_rate=2., regularizer=L2Decay(0.)))
    return L.batch_norm(y, act=act) if bn else y


def pyramidbox():
    img = L.data('image', [3, 32, 32]); fb = L.data('face_box', [4], lod_level=1); hb = L.data('head_box', [4], lod_level=1); lab = L.data('gt_label', [1], dtype='int32', lod_level=1)
    c1 = conv(img, 6, 3, 2); c2 = conv(c1, 8, 3, 2); c3 = conv(c2, 8, 3, 2)
    up = L.conv2d_transpose(c3, 8, filter_size=4, stride=2, padding=1, groups=8, param_attr=ParamAttr(initializer=Bilinear(), learning_rate=0., regularizer=L2Decay(0.), name='up_w'), bias_attr=False, use_cudnn=False)
    lfpn = L.elementwise_mul(conv(up, 8, 1), conv(c2, 8, 1))
    sc = L.create_parameter([8], 'float32', name='l2scale', default_initializer=Constant(3.)) if False else None
    nm = L.l2_normalize(lfpn, axis=1, epsilon=1e-10)
    s = L.create_parameter([8], L.core.VarDesc.VarType.FP32 if False else 'float32', attr=ParamAttr(name='norm_scale', initializer=Constant(4.)))
    nm = L.elementwise_mul(nm, s, axis=1)

    def cpm(x):
        a, b = conv(x, 4, 3), conv(conv(x, 4, 3), 4, 3)
        return L.relu(L.concat([conv(x, 8, 3, act=None), a, b], 1))

    def heads(which):
        locs, confs, boxes, vars_ = [], [], [], []
        for k, (f, size, step) in enumerate(((nm, 8., 4.), (c3, 16., 8.))):
            f = cpm(f) if which == 'face' else f
            loc = L.reshape(L.transpose(conv(f, 4, 3, act=None), [0, 2, 3, 1]), [0, -1, 4])
            if which == 'face' and k == 0:
                m = conv(f, 4, 3, act=None); neg, pos = L.split(m, [3, 1], dim=1)
                cf = L.concat([L.reduce_max(neg, 1, keep_dim=True), pos], 1)
            else:
                cf = conv(f, 2, 3, act=None)
            cf = L.reshape(L.transpose(cf, [0, 2, 3, 1]), [0, -1, 2])
            b, v = L.prior_box(f, img, min_sizes=[size * (1 if which == 'face' else 2)], steps=[step] * 2, aspect_ratios=[1.], clip=False, flip=False, offset=.5)
            locs.append(loc); confs.append(cf); boxes.append(L.reshape(b, [-1, 4])); vars_.append(L.reshape(v, [-1, 4]))
        return L.concat(locs, 1), L.concat(confs, 1), L.concat(boxes), L.concat(vars_)
    fl, fc_, fbx, fv = heads('face'); hl, hc, hbx, hv = heads('head')
    face = L.ssd_loss(fl, fc_, fb, lab, fbx, fv, overlap_threshold=.35, neg_overlap=.35)
    head = L.ssd_loss(hl, hc, hb, lab, hbx, hv, overlap_threshold=.35, neg_overlap=.35)
    face, head = L.reduce_sum(face), L.reduce_sum(head)
    face.persistable = True; head.persistable = True
    total = face + head
    test = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test):
        det = L.detection_output(fl, L.softmax(fc_) if False else fc_, fbx, fv, nms_threshold=.3, nms_top_k=50, keep_top_k=10, score_threshold=.01)
    b = [3, 6]; v = [.01, .001, .0001]
    fluid.optimizer.Momentum(L.piecewise_decay(b, v), .9, regularization=L2Decay(5e-4)).minimize(total)
    return dict(train=[face, head, total], test=[(test, [det.name])])


def boxes(r, n, s):
    a = r.rand(n, 4).astype('float32'); a[:, 2:] = np.minimum(a[:, :2] + .15 + .4 * a[:, 2:], 1.); return a * s


def f_pyr(r):
    b = boxes(r, 3, 1.)
    return {'image': r.randn(2, 3, 32, 32).astype('f'), 'face_box': T(b, [2, 1]), 'head_box': T(np.clip(b + [-.05, -.05, .05, .05], 0, 1).astype('f'), [2, 1]), 'gt_label': T(np.ones((3, 1), 'int32'), [2, 1])}


def cascade():
    img = L.data('image', [3, 64, 64]); gb = L.data('gt_box', [4], lod_level=1); gl = L.data('gt_class', [1], dtype='int32', lod_level=1); cr = L.data('is_crowd', [1], dtype='int32', lod_level=1); info = L.data('im_info', [3])
    c2 = conv(conv(img, 6, 3, 2), 6, 3, 2); c3 = conv(c2, 8, 3, 2); c4 = conv(c3, 8, 3, 2)
    lat = [conv(c, 6, 1, act=None) for c in (c2, c3, c4)]
    p4 = lat[2]; p3 = lat[1] + L.resize_nearest(p4, scale=2.); p2 = lat[0] + L.resize_nearest(p3, scale=2.)
    # Libra: balanced feature pyramid
    g = L.sums([L.pool2d(p2, 2, 'max', 2), p3, L.resize_nearest(p4, scale=2.)]) / 3.
    p2, p3, p4 = p2 + L.resize_nearest(g, scale=2.), p3 + g, p4 + L.pool2d(g, 2, 'max', 2)
    fp = [p2, p3, p4]
    rois, probs, cls, bbx, an, va = [], [], [], [], [], []
    for k, f in enumerate(fp):
        h = conv(f, 6, 3, name='rpn_conv'); s = L.conv2d(h, 3, 1, param_attr='rpn_cls.w', bias_attr='rpn_cls.b'); d = L.conv2d(h, 12, 1, param_attr=ParamAttr(name='rpn_bbox.w', initializer=Normal(0., .01)), bias_attr='rpn_bbox.b')
        a, v = L.anchor_generator(f, anchor_sizes=[16. * 2 ** k], aspect_ratios=[.5, 1., 2.], variance=[1.] * 4, stride=[4. * 2 ** k] * 2)
        ro, rp = L.generate_proposals(L.sigmoid(s), d, info, a, v, 20, 10, .7, 4., 1.)
        rois.append(ro); probs.append(rp); an.append(L.reshape(a, [-1, 4])); va.append(L.reshape(v, [-1, 4])); cls.append(L.reshape(L.transpose(s, [0, 2, 3, 1]), [0, -1, 1])); bbx.append(L.reshape(L.transpose(d, [0, 2, 3, 1]), [0, -1, 4]))
    sp, lp, st, lt, bw = L.rpn_target_assign(L.concat(bbx, 1), L.concat(cls, 1), L.concat(an), L.concat(va), gb, cr, info, 32, 0., .5, .7, .3, use_random=False)
    rcl = L.reduce_mean(L.sigmoid_cross_entropy_with_logits(sp, L.cast(st, 'float32'))); rrl = L.reduce_sum(L.smooth_l1(lp, lt, sigma=3., inside_weight=bw, outside_weight=bw)) / 32.
    roi = L.collect_fpn_proposals(rois, probs, 2, 4, 20)
    losses, dets, shapes = [rcl, rrl], [], []
    for st_, (thr, wts) in enumerate(((.5, [10., 10., 5., 5.]), (.6, [20., 20., 10., 10.]))):
        o = L.generate_proposal_labels(rpn_rois=roi, gt_classes=gl, is_crowd=cr, gt_boxes=gb, im_info=info, batch_size_per_im=16, fg_fraction=.25, fg_thresh=thr, bg_thresh_hi=thr, bg_thresh_lo=0., bbox_reg_weights=[1. / w for w in wts], class_nums=2, use_random=False, is_cls_agnostic=True, is_cascade_rcnn=st_ > 0)
        r_, labels, tg, iw, ow = o
        fpn, rest = L.distribute_fpn_proposals(r_, 2, 4, 3, 32)
        pooled = [L.roi_align(f, q, 4, 4, 1. / (4 * 2 ** k), 2) for k, (f, q) in enumerate(zip(fp, fpn))]
        x = L.gather(L.concat(pooled), rest) if False else L.lod_reset(L.gather(L.concat(pooled), rest), r_) if False else L.gather(L.concat(pooled), rest)
        h = L.fc(x, 12, act='relu', param_attr='head%d.w' % st_, bias_attr='head%d.b' % st_)
        sc, bd = L.fc(h, 3, param_attr='cls%d.w' % st_), L.fc(h, 8, param_attr=ParamAttr(name='box%d.w' % st_, initializer=Normal(0., .001)))
        labels.stop_gradient = True
        lc = L.reduce_mean(L.softmax_with_cross_entropy(sc, L.cast(labels, 'int64'))); lb = L.reduce_mean(L.smooth_l1(bd, tg, iw, ow, 1.))
        losses += [lc * [1., .5][st_], lb * [1., .5][st_]]; shapes += [labels, tg]
        dec = L.reshape(L.box_coder(r_, [1. / w for w in wts] if False else [.1, .1, .2, .2], L.reshape(bd, [-1, 2, 4]), 'decode_center_size', False, axis=1), [-1, 8])
        new = L.slice(dec, [1], [4], [8])
        roi = L.box_clip(L.lod_reset(new, r_), info)
        roi.stop_gradient = True
    loss = L.sums(losses)
    fluid.optimizer.Momentum(L.linear_lr_warmup(L.piecewise_decay([5], [.01, .001]), 3, .001, .01), .9, regularization=L2Decay(1e-4), grad_clip=fluid.clip.GradientClipByGlobalNorm(35.)).minimize(loss)
    return dict(train=losses + [loss, roi] + shapes)


def f_cas(r):
    b = boxes(r, 4, 63.)
    return {'image': r.randn(2, 3, 64, 64).astype('f'), 'gt_box': T(b, [2, 2]), 'gt_class': T(r.randint(1, 3, (4, 1)).astype('int32'), [2, 2]), 'is_crowd': T(np.zeros((4, 1), 'int32'), [2, 2]), 'im_info': np.array([[64, 64, 1.]] * 2, 'f')}


def centernet():
    img, hm, wh, reg, mask, ind = L.data('image', [3, 32, 32]), L.data('hm', [3, 8, 8]), L.data('wh', [4, 2]), L.data('reg', [4, 2]), L.data('mask', [4]), L.data('ind', [4], dtype='int64')
    x = conv(img, 8, 3, 2, bn=True); x = conv(x, 12, 3, 2, bn=True); y = conv(x, 12, 3, 2, bn=True)
    off = L.conv2d(y, 27, 3, 1, 1, param_attr=ParamAttr(initializer=Constant(0.01), name='dcn_off.w'), bias_attr='dcn_off.b')
    o, m = L.split(off, [18, 9], 1); m = L.sigmoid(m)
    y = L.relu(L.deformable_conv(y, o, m, 12, 3, 1, 1, groups=1, deformable_groups=1, im2col_step=1, param_attr='dcn.w', bias_attr=False))
    y = L.conv2d_transpose(y, 12, filter_size=4, stride=2, padding=1, bias_attr=False) + x
    head = lambda c, n, b=0.: L.conv2d(conv(y, 8, 3), c, 1, bias_attr=ParamAttr(name=n + '.b', initializer=Constant(b)))
    p = L.clip(L.sigmoid(head(3, 'hm', -2.19)), 1e-4, 1 - 1e-4)
    pos = L.cast(L.equal(hm, L.fill_constant_batch_size_like(hm, [-1, 3, 8, 8], 'float32', 1.)), 'float32'); neg = L.cast(L.less_than(hm, L.fill_constant([1], 'float32', 1.) + hm * 0.), 'float32')
    pl = L.reduce_sum(L.log(p) * L.pow(1. - p, 2.) * pos); nl = L.reduce_sum(L.log(1. - p) * L.pow(p, 2.) * L.pow(1. - hm, 4.) * neg)
    n = L.reduce_sum(pos)
    has = L.cast(n > 0., 'float32')
    focal = -1. * (pl * has + nl) / (n + (1. - has))

    def gat(f):
        f = L.reshape(L.transpose(f, [0, 2, 3, 1]), [0, -1, 2])
        idx = L.reshape(L.range(0, 2, 1, 'int64'), [-1, 1]); idx = L.expand(idx, [1, 4])
        nd = L.stack([idx, ind], axis=-1)
        return L.gather_nd(f, nd)
    e = L.unsqueeze(mask, [2])
    l1 = lambda a, b: L.reduce_sum(L.abs(a * e - b * e)) / (L.reduce_sum(mask) * 2. + 1e-4)
    lw, lr_ = l1(gat(head(2, 'wh')), wh), l1(gat(head(2, 'reg')), reg)
    loss = focal + .1 * lw + lr_
    keep = L.cast(L.equal(L.pool2d(p, 3, 'max', 1, 1), p), 'float32') * p
    sc, ix = L.topk(L.reshape(keep, [0, -1]), 4)
    fluid.optimizer.Adam(1e-2).minimize(loss)
    return dict(train=[focal, lw, lr_, loss, sc, ix])


def f_cn(r):
    h = (r.rand(2, 3, 8, 8) * .8).astype('f'); h.reshape(-1)[r.randint(0, h.size, 5)] = 1
    return {'image': r.randn(2, 3, 32, 32).astype('f'), 'hm': h, 'wh': r.rand(2, 4, 2).astype('f'), 'reg': r.rand(2, 4, 2).astype('f'), 'mask': (r.rand(2, 4) > .4).astype('f'), 'ind': r.randint(0, 64, (2, 4))}


def yolo():
    img, gb, gl, gs = L.data('image', [3, 64, 64]), L.data('gt_box', [4, 4]), L.data('gt_label', [4], dtype='int32'), L.data('gt_score', [4]); sz = L.data('im_size', [2], dtype='int32')
    anchors, masks = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 50], [[3, 4, 5], [0, 1, 2]]
    x = conv(img, 6, 3, 2, bn=True, act='leaky_relu')
    for _ in range(3): x = L.leaky_relu(conv(x, 8, 3, 2, act=None, bn=True), .1); route = x if _ == 1 else locals().get('route')
    spp = L.concat([x] + [L.pool2d(x, k, 'max', 1, k // 2) for k in (3, 5)], 1)
    t = conv(spp, 8, 1, bn=True, act='leaky_relu'); outs = [L.conv2d(t, 3 * 8, 1, bias_attr=ParamAttr(regularizer=L2Decay(0.)))]
    r_ = L.concat([L.resize_nearest(conv(t, 4, 1, bn=True), scale=2., name='up'), route], 1); outs.append(L.conv2d(conv(r_, 8, 3, bn=True), 24, 1))
    ls, bs, ss = [], [], []
    for k, o in enumerate(outs):
        l = L.yolov3_loss(o, gb, gl, anchors, masks[k], 3, .7, 16 // (2 ** k), gt_score=gs, use_label_smooth=True, name='yolo_loss%d' % k)
        ls.append(L.reduce_mean(l))
        an = [a for m in masks[k] for a in anchors[2 * m:2 * m + 2]]
        b, s = L.yolo_box(o, sz, an, 3, .01, 16 // (2 ** k), clip_bbox=True); bs.append(b); ss.append(L.transpose(s, [0, 2, 1]))
    loss = sum(ls)
    test = fluid.default_main_program().clone(for_test=True)
    with fluid.program_guard(test):
        nms = L.multiclass_nms(L.concat(bs, 1), L.concat(ss, 2), .005, 40, 8, .45, background_label=-1); mat = L.matrix_nms(L.concat(bs, 1), L.concat(ss, 2), .005, .0, 40, 8, background_label=-1) if hasattr(L, 'matrix_nms') else nms; loc = L.locality_aware_nms(L.concat(bs, 1), L.slice(L.concat(ss, 2), [1], [0], [1]), .005, 40, 8, .45, background_label=-1)
    ema = None
    fluid.optimizer.Momentum(L.piecewise_decay([2], [.01, .001]), .9, regularization=L2Decay(5e-4)).minimize(loss)
    return dict(train=ls + [loss], test=[(test, [nms.name])])


def f_yo(r):
    b = r.rand(2, 4, 4).astype('f') * .5 + .2; b[:, 3] = 0
    lam = .7
    return {'image': r.randn(2, 3, 64, 64).astype('f') * lam, 'gt_box': b, 'gt_label': r.randint(0, 3, (2, 4)).astype('int32'), 'gt_score': np.where(r.rand(2, 4) > .5, lam, 1 - lam).astype('f'), 'im_size': np.array([[64, 64], [80, 60]], 'int32')}


def east_db():
    img, sc, geo, m = L.data('image', [3, 32, 32]), L.data('score', [1, 8, 8]), L.data('geo', [9, 8, 8]), L.data('mask', [1, 8, 8]); sh, tm = L.data('shrink', [8, 8]), L.data('thr', [8, 8])
    x = conv(img, 6, 3, 2); x = conv(x, 8, 3, 2); y = L.resize_bilinear(conv(x, 8, 3, 2), out_shape=[8, 8], align_corners=False, align_mode=0); x = L.concat([x, y], 1)
    f = L.sigmoid(L.conv2d(x, 1, 1)); g = L.conv2d(x, 8, 1)
    inter = L.reduce_sum(f * sc * m); union = L.reduce_sum(f * m) + L.reduce_sum(sc * m) + 1e-5; dice = 1. - 2 * inter / union
    s8 = L.expand(sc, [1, 8, 1, 1]) if False else L.split(geo, 9, dim=1); gt = L.concat(s8[:8], 1); nq = s8[8]
    d = g - gt; ad = L.abs(d); less = L.cast(ad < L.ones_like(ad), 'float32'); less.stop_gradient = True
    sl = less * .5 * d * d + (1. - less) * (ad - .5); geo_l = L.reduce_mean(L.reduce_sum(sl, 1, keep_dim=True) / 8. * nq * sc)
    p, t = [L.squeeze(L.conv2d_transpose(conv(x, 4, 3), 1, filter_size=2, stride=2, act='sigmoid'), [1]) for _ in range(2)]
    p, t = [L.squeeze(L.pool2d(L.unsqueeze(v, [1]), 2, 'avg', 2), [1]) for v in (p, t)]
    b = 1. / (1. + L.exp(-50. * (p - t)))
    bce = L.log_loss(L.reshape(p, [-1, 1]), L.reshape(sh, [-1, 1])); pos = L.reshape(sh, [-1, 1]); np_ = L.reduce_sum(pos)
    k = L.cast(L.elementwise_min(np_ * 3., L.reduce_sum(1. - pos)), 'int32'); nl, _ = L.topk(L.transpose(bce * (1. - pos), [1, 0]), k=k)
    bal = (L.reduce_sum(bce * pos) + L.reduce_sum(nl)) / (np_ * 4. + 1e-6)
    l1 = L.reduce_mean(L.abs(t - tm)); db = 1. - 2. * L.reduce_sum(b * sh) / (L.reduce_sum(b) + L.reduce_sum(sh) + 1e-6)
    poly = L.polygon_box_transform(L.concat([g, ], 1))
    loss = dice + geo_l + 5 * bal + 10 * l1 + db
    fluid.optimizer.Adam(1e-2).minimize(loss)
    return dict(train=[dice, geo_l, bal, l1, db, loss, poly])


def f_ea(r): return {'image': r.randn(2, 3, 32, 32).astype('f'), 'score': (r.rand(2, 1, 8, 8) > .6).astype('f'), 'geo': r.rand(2, 9, 8, 8).astype('f'), 'mask': np.ones((2, 1, 8, 8), 'f'), 'shrink': (r.rand(2, 8, 8) > .8).astype('f'), 'thr': r.rand(2, 8, 8).astype('f')}


def pose():
    img, t, w = L.data('image', [3, 32, 32]), L.data('target', [5, 8, 8]), L.data('tw', [5, 1])
    x = conv(conv(conv(img, 6, 3, 2, bn=True), 8, 3, 2, bn=True), 8, 3, 2, bn=True)
    x = L.batch_norm(L.conv2d_transpose(x, 8, filter_size=4, stride=2, padding=1, param_attr=ParamAttr(initializer=Normal(0., .001)), bias_attr=False), act='relu')
    o = L.conv2d(x, 5, 1, param_attr=ParamAttr(initializer=Normal(0., .1), name='out.w'))
    hs, ts = [L.split(L.reshape(v, [0, 5, -1]), 5, dim=1) for v in (o, t)]; loss = None
    for i in range(5):
        a = L.squeeze(hs[i], [1]); b = L.squeeze(ts[i], [1]); ww = L.squeeze(L.slice(w, [1], [i], [i + 1]), [1])
        l = L.mean(L.square_error_cost(L.elementwise_mul(a, L.squeeze(ww, [1]) if False else L.reshape(ww, [-1]), axis=0), L.elementwise_mul(b, L.reshape(ww, [-1]), axis=0))); loss = l if loss is None else loss + l
    per = L.reshape(L.reduce_mean(L.square(o - t), dim=[2, 3]), [-1, 5]); top, _ = L.topk(per, 3); ohkm = L.reduce_mean(top)
    am = L.argmax(L.reshape(o, [0, 5, -1]), axis=-1); fl = L.reverse(o, [3])
    fluid.optimizer.Adam(L.piecewise_decay([2, 4], [.01, .001, .0001])).minimize(loss + ohkm)
    return dict(train=[loss, ohkm, am, fl])


def f_po(r): return {'image': r.randn(2, 3, 32, 32).astype('f'), 'target': r.rand(2, 5, 8, 8).astype('f'), 'tw': (r.rand(2, 5, 1) > .3).astype('f')}



for build, feeds in ((pyramidbox, f_pyr), (cascade, f_cas), (centernet, f_cn), (yolo, f_yo), (east_db, f_ea), (pose, f_po)):
    f = lambda build=build, feeds=feeds: run(build.__name__, build, feeds)
    f.__name__ = build.__name__
    section(f)
