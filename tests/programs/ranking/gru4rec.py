"""GRU4Rec: the next item of a session; over all items, or ranked against negatives by BPR (Hidasi et al., 2015)."""

import numpy as np

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("cross_entropy", "bpr")
ITEMS, WIDTH, HIDDEN, NEGATIVES = 25, 6, 5, 3


def data(rng):
    lens = lengths(rng, 4, 1, 6)
    pos, lod = ragged_ids(rng, lens, ITEMS)
    candidates = np.concatenate([pos, rng.randint(0, ITEMS, (len(pos), NEGATIVES))], 1).reshape(-1, 1)
    return {
        "src": ragged_ids(rng, lens, ITEMS),
        "dst": (pos, lod),
        "label": (candidates.astype("int64"), [lens, [NEGATIVES + 1] * len(pos)]),
        "pos": (np.zeros((len(pos), 1), "int64"), lod),
    }


def encoder(fluid, src):
    layers = fluid.layers
    emb = layers.embedding(
        input=src,
        size=[ITEMS, WIDTH],
        param_attr=fluid.ParamAttr(name="emb", initializer=fluid.initializer.XavierInitializer(), learning_rate=10.0),
        is_sparse=True,
    )
    fc0 = layers.fc(
        input=emb,
        size=HIDDEN * 3,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Uniform(-0.3, 0.3), learning_rate=2.0),
    )
    return layers.dynamic_gru(
        input=fc0,
        size=HIDDEN,
        param_attr=fluid.ParamAttr(initializer=fluid.initializer.Uniform(-0.3, 0.3), learning_rate=2.0),
    )


def build(fluid, variant):
    layers = fluid.layers
    src = layers.data(name="src", shape=[1], dtype="int64", lod_level=1)
    hidden = encoder(fluid, src)
    if variant == "cross_entropy":
        dst = layers.data(name="dst", shape=[1], dtype="int64", lod_level=1)
        out = layers.fc(input=hidden, size=ITEMS, act="softmax", param_attr=fluid.ParamAttr(learning_rate=2.0))
        cost = layers.cross_entropy(input=out, label=dst)
        acc = layers.accuracy(input=out, label=dst, k=20)
        fetch, used = [out, acc], ("src", "dst")
    else:
        label = layers.data(name="label", shape=[1], dtype="int64", lod_level=2)
        pos = layers.data(name="pos", shape=[1], dtype="int64", lod_level=1)
        emb_label = layers.embedding(
            input=label,
            size=[ITEMS, HIDDEN],
            param_attr=fluid.ParamAttr(name="label_emb", learning_rate=2.0),
            is_sparse=True,
        )
        emb_label = layers.reshape(emb_label, [-1, NEGATIVES + 1, HIDDEN])
        hidden = layers.reshape(hidden, [-1, 1, HIDDEN])
        score = layers.reshape(layers.reduce_sum(emb_label * hidden, -1), [-1, NEGATIVES + 1])
        cost = layers.bpr_loss(score, pos)
        fetch, used = [layers.softmax(score)], ("src", "label", "pos")
    avg_cost = layers.mean(x=cost)
    feeds = [{k: v for k, v in feed.items() if k in used} for feed in repeat(data, 5)]
    return Model(avg_cost, feeds, fetch, lambda: fluid.optimizer.Adagrad(learning_rate=0.05).minimize(avg_cost))
