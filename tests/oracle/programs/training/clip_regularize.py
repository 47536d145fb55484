"""Gradient clipping and weight decay, for all parameters and for single ones."""

import warnings

from program_model import Model, repeat

VARIANTS = (
    "value",
    "norm",
    "global_norm",
    "set_value",
    "set_some",
    "need_clip",
    "l1",
    "l2",
    "per_param_l1",
    "per_param_over_global",
    "clip_and_l2",
    "sparse_global_norm",
    "sparse_l2",
    "error_clip",
)


def data(rng):
    x = rng.uniform(-2, 2, (8, 4)).astype("float32")
    return {"x": x, "y": 3 * x.sum(1, keepdims=True), "ids": rng.randint(0, 12, (8, 1)).astype("int64")}


def build(fluid, variant):
    clip, decay = fluid.clip, fluid.regularizer
    x = fluid.layers.data(name="x", shape=[4], dtype="float32")
    y = fluid.layers.data(name="y", shape=[1], dtype="float32")
    ids = fluid.layers.data(name="ids", shape=[1], dtype="int64")
    attr = None
    if variant == "per_param_l1":
        attr = fluid.ParamAttr(name="w_first", regularizer=decay.L1Decay(0.05))
    if variant == "per_param_over_global":
        attr = fluid.ParamAttr(name="w_first", regularizer=decay.L2Decay(0.5), learning_rate=0.5)
    hidden = fluid.layers.fc(input=x, size=6, act="tanh", param_attr=attr)
    emb = fluid.layers.embedding(ids, [20, 6], is_sparse=variant.startswith("sparse"))
    predict = fluid.layers.fc(input=fluid.layers.elementwise_add(hidden, emb), size=1)
    if variant == "error_clip":
        hidden.error_clip = clip.ErrorClipByValue(max=0.02, min=-0.01)
    loss = fluid.layers.mean(fluid.layers.square_error_cost(input=predict, label=y))

    def train():
        by = {
            "value": clip.GradientClipByValue(max=0.3, min=-0.1),
            "norm": clip.GradientClipByNorm(0.4),
            "global_norm": clip.GradientClipByGlobalNorm(0.5),
            "clip_and_l2": clip.GradientClipByGlobalNorm(0.5),
            "sparse_global_norm": clip.GradientClipByGlobalNorm(0.5),
            "need_clip": clip.GradientClipByNorm(0.2, need_clip=lambda p: p.name.endswith(".w_0")),
        }.get(variant)
        reg = {
            "l1": decay.L1Decay(0.02),
            "l2": decay.L2Decay(0.02),
            "per_param_over_global": decay.L2Decay(0.02),
            "clip_and_l2": decay.L2DecayRegularizer(0.02),
            "sparse_l2": decay.L2Decay(0.02),
        }.get(variant)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if variant == "set_value":
                clip.set_gradient_clip(clip.GradientClipByValue(0.2))
            if variant == "set_some":
                clip.set_gradient_clip(clip.GradientClipByNorm(0.2), param_list=["fc_0.w_0"])
        fluid.optimizer.SGD(0.05, regularization=reg, grad_clip=by).minimize(loss)

    return Model(loss, repeat(data), [predict], train)
