"""Every optimizer on one small net with a dense and a sparse part."""

from program_model import Model, repeat


def choices(optimizer, regularizer):
    o = optimizer
    return {
        "sgd": lambda: o.SGD(0.1),
        "momentum": lambda: o.Momentum(0.05, 0.9),
        "momentum_nesterov": lambda: o.Momentum(0.05, 0.9, use_nesterov=True),
        "adam": lambda: o.Adam(0.01, beta1=0.8, beta2=0.99, epsilon=1e-7),
        "adam_lazy": lambda: o.Adam(0.01, lazy_mode=True),
        "adagrad": lambda: o.Adagrad(0.05, initial_accumulator_value=0.1),
        "rmsprop": lambda: o.RMSProp(0.01, rho=0.9),
        "rmsprop_centered": lambda: o.RMSProp(0.01, rho=0.9, epsilon=1e-4, momentum=0.5, centered=True),
        "adamax": lambda: o.Adamax(0.02),
        "adadelta": lambda: o.Adadelta(0.5, epsilon=1e-4, rho=0.9),
        "ftrl": lambda: o.Ftrl(0.05, l1=0.01, l2=0.02),
        "ftrl_power": lambda: o.Ftrl(0.05, lr_power=-0.4),
        "decayed_adagrad": lambda: o.DecayedAdagrad(0.02, decay=0.9),
        "lars": lambda: o.LarsMomentum(0.5, 0.9, lars_coeff=0.01, lars_weight_decay=0.001),
        "lamb": lambda: o.Lamb(0.02, lamb_weight_decay=0.05, exclude_from_weight_decay_fn=lambda p: p.name.endswith(".b_0")),
        "lookahead": lambda: o.LookaheadOptimizer(o.SGD(0.1), alpha=0.5, k=3),
    }


SPARSE = ("sgd", "momentum", "adam", "adam_lazy", "adagrad", "rmsprop")  # ftrl takes no sparse gradient
VARIANTS = tuple(sorted(choices(None, None))) + tuple("sparse_" + name for name in SPARSE)


def data(rng):
    x = rng.uniform(-1, 1, (8, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True), "ids": rng.randint(0, 12, (8, 1)).astype("int64")}


def build(fluid, variant):
    sparse = variant.startswith("sparse_")
    x = fluid.layers.data(name="x", shape=[4], dtype="float32")
    y = fluid.layers.data(name="y", shape=[1], dtype="float32")
    hidden = fluid.layers.fc(input=x, size=6, act="tanh")
    if sparse:
        ids = fluid.layers.data(name="ids", shape=[1], dtype="int64")
        hidden = fluid.layers.elementwise_add(hidden, fluid.layers.embedding(ids, [20, 6], is_sparse=True))
    predict = fluid.layers.fc(input=hidden, size=1)
    loss = fluid.layers.mean(fluid.layers.square_error_cost(input=predict, label=y))
    make = choices(fluid.optimizer, fluid.regularizer)[variant.replace("sparse_", "")]
    feeds = repeat(data)
    if not sparse:
        feeds = [{k: f[k] for k in ("x", "y")} for f in feeds]
    return Model(loss, feeds, [predict], train=lambda: make().minimize(loss))
