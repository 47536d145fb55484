"""A word tagger: two layers of GRUs in both directions under a CRF with its own learning rate."""

from program_model import Model, lengths, ragged_ids, repeat

WORDS, TAGS, HIDDEN = 40, 7, 6


def data(rng):
    lens = lengths(rng, 4, 1, 8)
    return {"word": ragged_ids(rng, lens, WORDS), "target": ragged_ids(rng, lens, TAGS)}


def build(fluid):
    word = fluid.layers.data(name="word", shape=[1], dtype="int64", lod_level=1)
    target = fluid.layers.data(name="target", shape=[1], dtype="int64", lod_level=1)
    init = fluid.initializer.Uniform(low=-0.1, high=0.1)
    decay = fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-4)

    def attr():
        return fluid.ParamAttr(initializer=init, regularizer=decay)

    def bigru_layer(feature):
        pre = fluid.layers.fc(input=feature, size=HIDDEN * 3, param_attr=attr())
        gru = fluid.layers.dynamic_gru(input=pre, size=HIDDEN, param_attr=attr())
        pre_r = fluid.layers.fc(input=feature, size=HIDDEN * 3, param_attr=attr())
        gru_r = fluid.layers.dynamic_gru(input=pre_r, size=HIDDEN, is_reverse=True, param_attr=attr())
        return fluid.layers.concat(input=[gru, gru_r], axis=1)

    feature = fluid.layers.embedding(
        input=word, size=[WORDS, 8], param_attr=fluid.ParamAttr(learning_rate=2.0, name="word_emb", initializer=init)
    )
    for _ in range(2):
        feature = bigru_layer(feature)
    emission = fluid.layers.fc(size=TAGS, input=feature, param_attr=attr())
    crf_cost = fluid.layers.linear_chain_crf(
        input=emission, label=target, param_attr=fluid.ParamAttr(name="crfw", learning_rate=0.2)
    )
    avg_cost = fluid.layers.mean(x=crf_cost)
    decode = fluid.layers.crf_decoding(input=emission, param_attr=fluid.ParamAttr(name="crfw"))
    precision, recall, f1, n_infer, n_label, n_correct = fluid.layers.chunk_eval(
        input=decode, label=target, chunk_scheme="IOB", num_chunk_types=3
    )
    return Model(
        avg_cost,
        repeat(data),
        [crf_cost, decode, n_infer, n_label, n_correct],
        train=lambda: fluid.optimizer.SGD(learning_rate=0.05).minimize(avg_cost),
    )
