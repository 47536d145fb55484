"""DSSM: query and documents as bags of letter n-grams through shared towers, softmax of scaled cosines (Huang et al., 2013)."""

import numpy as np

from program_model import Model, repeat

BATCH, GRAMS, NEGATIVES, GAMMA = 4, 24, 3, 10.0
SIZES = (12, 8)


def data(rng):
    def bag():
        return (rng.uniform(0, 1, (BATCH, GRAMS)) > 0.7).astype("float32")

    return dict({"query": bag(), "doc_pos": bag()}, **{"doc_neg_%d" % i: bag() for i in range(NEGATIVES)})


def tower(fluid, x, prefix):
    for i, size in enumerate(SIZES):
        reach = np.sqrt(6.0 / (x.shape[1] + size))
        x = fluid.layers.fc(
            input=x,
            size=size,
            act="tanh",
            param_attr=fluid.ParamAttr(
                name="%s_w%d" % (prefix, i), initializer=fluid.initializer.Uniform(low=-float(reach), high=float(reach))
            ),
            bias_attr=fluid.ParamAttr(name="%s_b%d" % (prefix, i), initializer=fluid.initializer.Constant(0.1)),
        )
    return x


def build(fluid):
    layers = fluid.layers
    query = tower(fluid, fluid.data(name="query", shape=[None, GRAMS], dtype="float32"), "query")
    names = ["doc_pos"] + ["doc_neg_%d" % i for i in range(NEGATIVES)]
    docs = [tower(fluid, fluid.data(name=n, shape=[None, GRAMS], dtype="float32"), "doc") for n in names]
    scores = layers.concat([layers.cos_sim(query, doc) for doc in docs], axis=-1)
    prob = layers.softmax(scores * GAMMA, axis=-1)
    hit_prob = layers.slice(prob, axes=[0, 1], starts=[0, 0], ends=[BATCH, 1])
    loss = -layers.reduce_sum(layers.log(hit_prob))
    avg_cost = layers.mean(x=loss)
    return Model(avg_cost, repeat(data, 5), [prob], lambda: fluid.optimizer.SGD(0.05).minimize(avg_cost))
