"""Multi-view SimNet: several slots a side, each through its own encoder, cosine hinge (Elkahky et al., 2015; Yin and Schuetze)."""

from program_model import Model, lengths, ragged_ids, repeat

VARIANTS = ("bow", "cnn", "gru")
WORDS, WIDTH, HIDDEN, QUERY_SLOTS, TITLE_SLOTS = 30, 5, 6, 2, 1


def data(rng):
    names = ["q%d" % i for i in range(QUERY_SLOTS)] + ["pt%d" % i for i in range(TITLE_SLOTS)]
    names += ["nt%d" % i for i in range(TITLE_SLOTS)]
    return {name: ragged_ids(rng, lengths(rng, 4, 2, 6), WORDS) for name in names}


def cnn(fluid, emb, name):
    conv = fluid.layers.sequence_conv(
        input=emb,
        num_filters=HIDDEN,
        filter_size=3,
        param_attr=name + ".param",
        bias_attr=name + ".bias",
        act="relu",
    )
    return fluid.layers.sequence_pool(input=conv, pool_type="max")


def gru(fluid, emb, name):
    gate = fluid.layers.fc(input=emb, size=HIDDEN * 3, param_attr=name + "_fc.w", bias_attr=False)
    state = fluid.layers.dynamic_gru(
        input=gate, size=HIDDEN, is_reverse=False, param_attr=name + ".param", bias_attr=name + ".bias"
    )
    return fluid.layers.sequence_pool(input=state, pool_type="max")


def bow(fluid, emb, name):
    return fluid.layers.sequence_pool(input=emb, pool_type="sum")


def build(fluid, variant):
    layers = fluid.layers
    encode = {"bow": bow, "cnn": cnn, "gru": gru}[variant]

    def side(prefix, slots, shared):
        encoded = []
        for i in range(slots):
            slot = layers.data(name="%s%d" % (prefix, i), shape=[1], lod_level=1, dtype="int64")
            emb = layers.embedding(input=slot, size=[WORDS, WIDTH], param_attr="emb.w", is_sparse=True)
            encoded.append(layers.softsign(encode(fluid, emb, "%s_%d" % (shared, i))))
        joined = layers.concat(encoded, axis=1)
        return layers.fc(joined, size=HIDDEN, param_attr=shared + "_fc.w", bias_attr=shared + "_fc.b")

    query, pos, neg = side("q", QUERY_SLOTS, "q"), side("pt", TITLE_SLOTS, "t"), side("nt", TITLE_SLOTS, "t")
    cos_pos, cos_neg = layers.cos_sim(query, pos), layers.cos_sim(query, neg)
    margin = layers.fill_constant_batch_size_like(input=cos_pos, shape=[-1, 1], dtype="float32", value=0.5)
    loss = layers.relu(layers.elementwise_add(layers.elementwise_sub(margin, cos_pos), cos_neg))
    avg_cost = layers.mean(loss)
    return Model(
        avg_cost,
        repeat(data, 5),
        [cos_pos, cos_neg],
        lambda: fluid.optimizer.Adam(learning_rate=0.01, lazy_mode=True).minimize(avg_cost),
    )
