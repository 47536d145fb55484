from kit import draw, fluid, np, section, show, train

L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()


def RS(s=0):
    return np.random.RandomState(s)


def im(*s):
    return RS(len(s)).rand(*s).astype("float32")


def boxes(n, s=0):
    r = RS(s)
    a = r.rand(n, 2) * 0.5
    return np.concatenate([a, a + 0.1 + r.rand(n, 2) * 0.4], 1).astype("float32")


def lt(a, l):
    return fluid.create_lod_tensor(a, [l], pl)


@section
def ssd_full():
    x = L.data("x", [3, 32, 32])
    gb = L.data("gb", [4], lod_level=1)
    gl = L.data("gl", [1], dtype="int32", lod_level=1)
    df = L.data("df", [1], dtype="int32", lod_level=1)
    f1 = L.conv2d(x, 4, 3, 4, 1, act="relu")
    f2 = L.conv2d(f1, 6, 3, 2, 1, act="relu")
    f3 = L.conv2d(f2, 6, 3, 2, 1, act="relu")
    loc, conf, bx, var = L.multi_box_head(
        inputs=[f1, f2, f3],
        image=x,
        num_classes=4,
        min_ratio=20,
        max_ratio=90,
        aspect_ratios=[[2.0], [2.0, 3.0], [2.0]],
        base_size=32,
        offset=0.5,
        flip=True,
        clip=True,
    )
    nms = L.detection_output(loc, conf, bx, var, nms_threshold=0.45, score_threshold=0.05)
    loss = L.reduce_sum(L.ssd_loss(loc, conf, gb, L.cast(gl, "int32"), bx, var))
    mp = (
        L.detection.detection_map(
            nms, L.concat([L.cast(gl, "float32"), gb], 1), 4, overlap_threshold=0.5, ap_version="11point"
        )
        if False
        else None
    )
    train(
        loss,
        [{"x": im(2, 3, 32, 32), "gb": lt(boxes(3), [1, 2]), "gl": lt(np.array([[1], [2], [3]], "int32"), [1, 2])}] * 3,
        O.Momentum(0.001, 0.9),
        [nms, bx, var],
        rn=False,
    )


@section
def pyramid_ssd_options():
    x = L.data("x", [3, 16, 16])
    f = L.conv2d(x, 4, 3, 2, 1)
    b, v = L.prior_box(
        f,
        x,
        [4.0],
        [8.0],
        [1.0, 2.0],
        [0.1, 0.1, 0.2, 0.2],
        flip=True,
        clip=False,
        steps=[2.0, 2.0],
        min_max_aspect_ratios_order=True,
    )
    d, dv = L.density_prior_box(f, x, [2, 1], [4.0, 8.0], [1.0], flatten_to_2d=True)
    a, av = L.anchor_generator(f, [8.0, 16.0], [0.5, 1.0], stride=[2.0, 2.0], offset=0.5)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": im(1, 3, 16, 16)}, fetch_list=[b, v, d, dv, a, av]))


@section
def yolo():
    x = L.data("x", [3, 16, 16])
    gb = L.data("gb", [3, 4])
    gl = L.data("gl", [3], dtype="int32")
    gs = L.data("gs", [3])
    sz = L.data("sz", [2], dtype="int32")
    h = L.conv2d(x, 3 * 9, 3, 4, 1)
    u = L.conv2d(L.resize_nearest(h, scale=2.0), 3 * 9, 1)
    A = [4, 4, 6, 8, 10, 10, 12, 9, 14, 16, 8, 12]
    l1 = L.yolov3_loss(h, gb, gl, A, [3, 4, 5], 4, 0.7, 4, gt_score=gs, use_label_smooth=False)
    l2 = L.yolov3_loss(u, gb, gl, A, [0, 1, 2], 4, 0.5, 2)
    loss = L.mean(l1) + L.mean(l2)
    b1, s1 = L.yolo_box(h, sz, A[6:], 4, 0.01, 4)
    b2, s2 = L.yolo_box(u, sz, A[:6], 4, 0.01, 2, clip_bbox=False)
    pr = L.multiclass_nms(
        L.concat([b1, b2], 1), L.transpose(L.concat([s1, s2], 1), [0, 2, 1]), 0.01, 100, 20, 0.45, background_label=-1
    )
    r = RS()
    g = np.concatenate([r.rand(2, 3, 2), r.rand(2, 3, 2) * 0.3 + 0.05], 2).astype("float32")
    g[1, 2] = 0
    train(
        loss,
        [
            {
                "x": im(2, 3, 16, 16),
                "gb": g,
                "gl": r.randint(0, 4, (2, 3)).astype("int32"),
                "gs": r.rand(2, 3).astype("float32"),
                "sz": np.array([[32, 32], [20, 24]], "int32"),
            }
        ]
        * 3,
        O.Momentum(L.piecewise_decay([2], [0.001, 0.0001]), 0.9),
        [l1, l2, pr],
        rn=False,
    )


@section
def rpn_fpn():
    x = L.data("x", [3, 32, 32])
    info = L.data("info", [3])
    gt = L.data("gt", [4], lod_level=1)
    cr = L.data("cr", [1], dtype="int32", lod_level=1)
    gl = L.data("gl", [1], dtype="int32", lod_level=1)
    f = L.conv2d(x, 4, 3, 8, 1, act="relu")
    sc = L.conv2d(f, 4, 1)
    dl = L.conv2d(f, 16, 1)
    an, va = L.anchor_generator(f, [8.0, 16.0], [1.0, 0.5], [0.1, 0.1, 0.2, 0.2], [8.0, 8.0])
    prob = L.sigmoid(sc)
    rois, rp = L.generate_proposals(
        prob, dl, info, an, va, pre_nms_top_n=20, post_nms_top_n=8, nms_thresh=0.7, min_size=1.0, eta=1.0
    )
    sp = L.reshape(L.transpose(sc, [0, 2, 3, 1]), [0, -1, 1])
    dp = L.reshape(L.transpose(dl, [0, 2, 3, 1]), [0, -1, 4])
    ps, pb, tl, tb, iw = L.rpn_target_assign(
        dp,
        sp,
        L.reshape(an, [-1, 4]),
        L.reshape(va, [-1, 4]),
        gt,
        cr,
        info,
        rpn_batch_size_per_im=16,
        rpn_straddle_thresh=-1.0,
        rpn_fg_fraction=0.5,
        rpn_positive_overlap=0.5,
        rpn_negative_overlap=0.3,
        use_random=False,
    )
    l1 = L.reduce_mean(L.sigmoid_cross_entropy_with_logits(ps, L.cast(tl, "float32")))
    l2 = L.reduce_sum(L.smooth_l1(pb, tb, inside_weight=iw, outside_weight=iw, sigma=3.0))
    ra = L.roi_align(f, rois, 2, 2, 0.125, 2)
    rpl = L.roi_pool(f, rois, 2, 2, 0.125)
    mf, rst = L.distribute_fpn_proposals(rois, 2, 4, 3, 16)
    col = L.collect_fpn_proposals([rois, rois], [rp, rp], 2, 3, 5)
    bc = L.box_clip(rois, info)
    ro, lb, bt, bi, bo = L.generate_proposal_labels(
        rois,
        gl,
        cr,
        gt,
        info,
        batch_size_per_im=8,
        fg_fraction=0.25,
        fg_thresh=0.5,
        bg_thresh_hi=0.5,
        bg_thresh_lo=0.0,
        bbox_reg_weights=[0.1, 0.1, 0.2, 0.2],
        class_nums=3,
        use_random=False,
    )
    head = L.fc(L.roi_align(f, ro, 2, 2, 0.125), 3)
    l3 = L.mean(L.softmax_with_cross_entropy(head, L.cast(lb, "int64"), numeric_stable_mode=True))
    loss = l1 + l2 + l3
    train(
        loss,
        [
            {
                "x": im(1, 3, 32, 32),
                "info": np.array([[32, 32, 1.0]], "float32"),
                "gt": lt((boxes(2, 3) * 32).astype("float32"), [2]),
                "cr": lt(np.zeros((2, 1), "int32"), [2]),
                "gl": lt(np.array([[1], [2]], "int32"), [2]),
            }
        ]
        * 3,
        O.SGD(0.001),
        [rois, rp, tl, tb, lb, bt, ro, col, bc, rst, mf[1]],
        rn=False,
    )


@section
def matching_misc():
    x = L.data("x", [4], lod_level=1)
    y = L.data("y", [4])
    iou = L.iou_similarity(x, y)
    mi, md = L.bipartite_match(iou, "per_prediction", 0.3)
    t, w = L.target_assign(x, mi, mismatch_value=0) if False else (iou, iou)
    en = L.box_coder(y, [0.1, 0.1, 0.2, 0.2], x, "encode_center_size")
    pv = L.data("pv", [4])
    de = L.box_coder(y, pv, L.reshape(en, [-1, 5, 4]), "decode_center_size", axis=0)
    poly = L.polygon_box_transform(L.reshape(L.data("g", [8, 2, 2]), [-1, 8, 2, 2]))
    b4 = boxes(5, 2)
    exe = fluid.Executor(pl)
    show(
        exe.run(
            feed={"x": lt(boxes(3, 1), [1, 2]), "y": b4, "pv": np.full((5, 4), 0.1, "float32"), "g": im(1, 8, 2, 2)},
            fetch_list=[iou, mi, md, en, de, poly],
            return_numpy=False,
        )
    )


@section
def nms_variants():
    b = L.data("b", [6, 4])
    s = L.data("s", [3, 6])
    o1 = L.multiclass_nms(b, s, 0.1, 5, 4, 0.3, normalized=False, nms_eta=0.9)
    o2, ix = (
        fluid.contrib.layers.multiclass_nms2(b, s, 0.1, 5, 4, 0.3, return_index=True)
        if hasattr(fluid.contrib, "layers")
        else (o1, o1)
    )
    o3 = L.locality_aware_nms(L.data("q", [6, 4]), L.data("qs", [1, 6]), 0.1, 5, 4, 0.3, background_label=-1)
    o4, i4 = L.matrix_nms(b, s, 0.1, 0.05, 5, 4, return_index=True) if hasattr(L, "matrix_nms") else (o1, o1)
    bb = np.stack([boxes(6, 5), boxes(6, 6)])
    exe = fluid.Executor(pl)
    show(
        exe.run(
            feed={
                "b": bb,
                "s": RS(1).rand(2, 3, 6).astype("float32"),
                "q": bb[:1],
                "qs": RS(2).rand(1, 1, 6).astype("float32"),
            },
            fetch_list=[o1, o2, ix, o3, o4],
            return_numpy=False,
        )
    )
