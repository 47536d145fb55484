"""Lexical analysis: stacked bidirectional GRUs under a conditional random field (Huang et al., 2015), decoded by Viterbi."""

from program_model import Model, lengths, ragged_ids, repeat

WORDS, LABELS, WIDTH, HIDDEN, LAYERS = 40, 7, 8, 6, 2


def data(rng):
    lens = lengths(rng, 5, 1, 7)
    return {"words": ragged_ids(rng, lens, WORDS), "targets": ragged_ids(rng, lens, LABELS)}


def bigru_layer(fluid, input_feature, name, init_bound=0.1):
    layers = fluid.layers

    def weights(suffix):
        return fluid.ParamAttr(
            name=name + suffix,
            initializer=fluid.initializer.Uniform(low=-init_bound, high=init_bound),
            regularizer=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-4),
        )

    pre_gru = layers.fc(input=input_feature, size=HIDDEN * 3, param_attr=weights("_fc"))
    gru = layers.dynamic_gru(input=pre_gru, size=HIDDEN, param_attr=weights("_gru"))
    pre_gru_r = layers.fc(input=input_feature, size=HIDDEN * 3, param_attr=weights("_fc_r"))
    gru_r = layers.dynamic_gru(input=pre_gru_r, size=HIDDEN, is_reverse=True, param_attr=weights("_gru_r"))
    return layers.concat(input=[gru, gru_r], axis=1)


def build(fluid):
    layers = fluid.layers
    words = layers.data(name="words", shape=[1], dtype="int64", lod_level=1)
    targets = layers.data(name="targets", shape=[1], dtype="int64", lod_level=1)
    feature = layers.embedding(
        input=words,
        size=[WORDS, WIDTH],
        dtype="float32",
        param_attr=fluid.ParamAttr(
            learning_rate=2.0, name="word_emb", initializer=fluid.initializer.Uniform(low=-0.1, high=0.1)
        ),
    )
    for i in range(LAYERS):
        feature = bigru_layer(fluid, feature, "bigru%d" % i)
    emission = layers.fc(
        size=LABELS,
        input=feature,
        param_attr=fluid.ParamAttr(
            initializer=fluid.initializer.Uniform(low=-0.1, high=0.1),
            regularizer=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-4),
        ),
    )
    crf_cost = layers.linear_chain_crf(
        input=emission, label=targets, param_attr=fluid.ParamAttr(name="crfw", learning_rate=0.2)
    )
    avg_cost = layers.mean(x=crf_cost)
    crf_decode = layers.crf_decoding(input=emission, param_attr=fluid.ParamAttr(name="crfw"))
    counts = layers.chunk_eval(input=crf_decode, label=targets, chunk_scheme="IOB", num_chunk_types=(LABELS - 1) // 2)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data, 5)

    def train():
        fluid.optimizer.Adam(learning_rate=0.02).minimize(avg_cost)

    return Model(avg_cost, feeds, [emission, crf_decode] + list(counts), train, (test_program, feeds[1], [crf_decode]))
