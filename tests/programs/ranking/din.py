"""DIN: attention of the candidate item over the items clicked before, padded with a mask (Zhou et al., 2017)."""

import numpy as np

from program_model import Model, repeat

BATCH, TIME, ITEMS, CATEGORIES, WIDTH = 6, 5, 30, 8, 4


def data(rng):
    length = rng.randint(1, TIME + 1, (BATCH,))
    mask = np.where(np.arange(TIME)[None, :] < length[:, None], 0.0, -(2.0**32) + 1).astype("float32")
    return {
        "hist_item_seq": rng.randint(0, ITEMS, (BATCH, TIME)).astype("int64"),
        "hist_cat_seq": rng.randint(0, CATEGORIES, (BATCH, TIME)).astype("int64"),
        "target_item": rng.randint(0, ITEMS, (BATCH,)).astype("int64"),
        "target_cat": rng.randint(0, CATEGORIES, (BATCH,)).astype("int64"),
        "label": rng.randint(0, 2, (BATCH, 1)).astype("float32"),
        "mask": mask[:, :, None],
        "target_item_seq": rng.randint(0, ITEMS, (BATCH, TIME)).astype("int64"),
        "target_cat_seq": rng.randint(0, CATEGORIES, (BATCH, TIME)).astype("int64"),
    }


def attention(fluid, hist, target_expand, mask):
    layers, width = fluid.layers, 2 * WIDTH
    concat = layers.concat([hist, target_expand, hist - target_expand, hist * target_expand], axis=2)
    for i, size in enumerate((16, 8)):
        name = "atten_fc%d" % (i + 1)
        concat = layers.fc(
            name=name,
            input=concat,
            size=size,
            act="sigmoid",
            num_flatten_dims=2,
            param_attr=fluid.ParamAttr(name=name + "_w"),
            bias_attr=fluid.ParamAttr(name=name + "_b"),
        )
    score = layers.fc(
        name="atten_fc3",
        input=concat,
        size=1,
        num_flatten_dims=2,
        param_attr=fluid.ParamAttr(name="atten_fc3_w"),
        bias_attr=fluid.ParamAttr(name="atten_fc3_b"),
    )
    score = layers.transpose(score + mask, perm=[0, 2, 1])
    weight = layers.softmax(layers.scale(score, scale=width**-0.5))
    return layers.reshape(layers.matmul(weight, hist), shape=[0, width]), weight


def build(fluid):
    layers = fluid.layers
    ids = {
        name: fluid.data(name=name, shape=[None, TIME] if name.endswith("_seq") else [None], dtype="int64")
        for name in ("hist_item_seq", "hist_cat_seq", "target_item", "target_cat", "target_item_seq", "target_cat_seq")
    }
    label = fluid.data(name="label", shape=[None, 1], dtype="float32")
    mask = fluid.data(name="mask", shape=[None, TIME, 1], dtype="float32")

    def embed(kind, suffix=""):
        item = fluid.embedding(
            ids[kind + "_item" + suffix], [ITEMS, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="item_emb")
        )
        category = fluid.embedding(
            ids[kind + "_cat" + suffix], [CATEGORIES, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="cat_emb")
        )
        return layers.concat([item, category], axis=-1)

    item_b = fluid.embedding(
        ids["target_item"],
        [ITEMS, 1],
        is_sparse=True,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(value=0.0)),
    )
    pooled, weight = attention(fluid, embed("hist", "_seq"), embed("target", "_seq"), mask)
    pooled = layers.fc(name="out_fc", input=pooled, size=2 * WIDTH, num_flatten_dims=1)
    concat = layers.concat([pooled, embed("target")], axis=1)
    concat = layers.batch_norm(concat, epsilon=1e-5)
    hidden = layers.fc(layers.fc(concat, 16, act="sigmoid"), 8, act="sigmoid")
    logit = layers.fc(hidden, 1) + item_b
    avg_loss = layers.mean(layers.sigmoid_cross_entropy_with_logits(logit, label))

    def train():
        schedule = layers.piecewise_decay(boundaries=[3], values=[0.5, 0.1])
        fluid.clip.set_gradient_clip(clip=fluid.clip.GradientClipByGlobalNorm(clip_norm=5.0))
        fluid.optimizer.SGD(
            learning_rate=schedule, regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-6)
        ).minimize(avg_loss)

    return Model(avg_loss, repeat(data, 5), [weight, layers.sigmoid(logit)], train)
