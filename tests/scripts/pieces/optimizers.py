from kit import ex, fluid, np, section, train

L = fluid.layers
O = fluid.optimizer
R = np.random.RandomState(0)
FDS = [
    {
        "x": R.rand(5, 4).astype("float32"),
        "y": R.rand(5, 1).astype("float32"),
        "w": R.randint(0, 7, (5, 1)).astype("int64"),
    }
    for _ in range(4)
]


def net(sparse=False):
    x = L.data("x", [4])
    y = L.data("y", [1])
    w = L.data("w", [1], dtype="int64")
    e = L.embedding(w, [7, 4], is_sparse=sparse, param_attr="emb")
    h = L.fc(L.concat([x, e], 1), 5, act="tanh")
    p = L.fc(h, 1)
    return L.mean(L.square_error_cost(p, y))


def go(make, sparse):
    main, st = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, st), fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard():
        loss = net(sparse)
        try:
            train(loss, FDS, make(), extra=["emb", "fc_0.w_0"])
        except Exception as e:
            print(ex(e))


LR = 0.1
opts = dict(
    sgd=lambda: O.SGD(LR),
    momentum=lambda: O.Momentum(LR, 0.9),
    nesterov=lambda: O.MomentumOptimizer(LR, 0.9, use_nesterov=True),
    larc=lambda: O.LarsMomentum(LR, 0.9, lars_weight_decay=0.01),
    adagrad=lambda: O.Adagrad(LR, initial_accumulator_value=0.1),
    adam=lambda: O.Adam(LR),
    adamlazy=lambda: O.Adam(LR, lazy_mode=True, epsilon=1e-4),
    adamax=lambda: O.Adamax(LR),
    dadagrad=lambda: O.DecayedAdagrad(LR),
    adadelta=lambda: O.Adadelta(LR, rho=0.9),
    rms=lambda: O.RMSProp(LR),
    rmsc=lambda: O.RMSProp(LR, centered=True, momentum=0.5),
    ftrl=lambda: O.Ftrl(LR, l1=0.01, l2=0.02),
    lamb=lambda: O.Lamb(LR, exclude_from_weight_decay_fn=lambda p: p.name.endswith("b_0")),
    reg=lambda: O.SGD(LR, regularization=fluid.regularizer.L2Decay(0.1)),
    l1=lambda: O.Adam(LR, regularization=fluid.regularizer.L1Decay(0.1)),
    gclip=lambda: O.SGD(LR, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.05)),
    nclip=lambda: O.Momentum(LR, 0.9, grad_clip=fluid.clip.GradientClipByNorm(0.02)),
    vclip=lambda: O.Adam(LR, grad_clip=fluid.clip.GradientClipByValue(0.01, -0.02)),
    plist=lambda: O.SGD(LR, parameter_list=None),
    dgc=lambda: O.DGCMomentumOptimizer(LR, 0.9, rampup_begin_step=100),
    look=lambda: O.LookaheadOptimizer(O.SGD(LR), alpha=0.5, k=2),
    adam_reg_clip=lambda: O.Adam(
        LR, regularization=fluid.regularizer.L2Decay(0.05), grad_clip=fluid.clip.GradientClipByGlobalNorm(0.1)
    ),
)
# these refuse sparse gradients in 1.8.5
DENSE = ("adadelta", "adamax", "dadagrad", "ftrl", "larc")
for sp in (False, True):
    for k in sorted(opts):
        if k == "dgc" or (sp and k in DENSE):
            continue

        def f():
            go(opts[k], sp)

        f.__name__ = "%s_%s" % (k, sp)
        section(f)
