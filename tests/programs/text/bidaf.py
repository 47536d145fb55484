"""BiDAF: question and passage attend to each other, a span is pointed at (Seo et al., 2016). Sequences carry their lengths."""

import numpy as np

from program_model import Model, lengths, ragged_ids, repeat

WORDS, WIDTH, HIDDEN, PASSAGES = 40, 6, 5, 3


def data(rng):
    questions, passages = lengths(rng, PASSAGES, 2, 5), lengths(rng, PASSAGES, 4, 8)

    def one_hot():
        rows = [np.eye(n, dtype="float32")[rng.randint(0, n)] for n in passages]
        return np.concatenate(rows).reshape(-1, 1), [passages]

    return {
        "q_ids": ragged_ids(rng, questions, WORDS),
        "p_ids": ragged_ids(rng, passages, WORDS),
        "start_labels": one_hot(),
        "end_labels": one_hot(),
    }


def dropout(fluid, x):
    return fluid.layers.dropout(x, dropout_prob=0.0)


def bi_lstm_encoder(fluid, name, input_seq):
    """Forward and backward LSTM side by side: [.., 2 * HIDDEN]."""
    layers = fluid.layers
    sides = []
    for side, reverse in (("fw", False), ("bw", True)):
        gates = layers.fc(
            input=input_seq,
            size=HIDDEN * 4,
            bias_attr=False,
            param_attr=fluid.ParamAttr(name="%s_%s_gate_w" % (name, side)),
        )
        hidden, _ = layers.dynamic_lstm(
            input=gates,
            size=HIDDEN * 4,
            is_reverse=reverse,
            use_peepholes=False,
            param_attr=fluid.ParamAttr(name="%s_%s_lstm_w" % (name, side)),
            bias_attr=fluid.ParamAttr(name="%s_%s_lstm_b" % (name, side)),
        )
        sides.append(hidden)
    return layers.concat(input=sides, axis=1)


def attention_flow(fluid, passage, question, maxlen_p=8, maxlen_q=5):
    """Similarities over padded copies, a softmax over each side with the padding masked."""
    layers = fluid.layers
    zero = layers.fill_constant([1], "float32", 0.0)
    p_pad, p_len = layers.sequence_pad(passage, zero, maxlen=maxlen_p)
    q_pad, q_len = layers.sequence_pad(question, zero, maxlen=maxlen_q)
    p_mask = layers.unsqueeze(layers.sequence_mask(p_len, maxlen=maxlen_p, dtype="float32"), [2])
    q_mask = layers.unsqueeze(layers.sequence_mask(q_len, maxlen=maxlen_q, dtype="float32"), [1])
    similarity = layers.matmul(
        layers.fc(p_pad, 2 * HIDDEN, num_flatten_dims=2, bias_attr=False), q_pad, transpose_y=True
    )
    masked = similarity + (q_mask - 1.0) * 1e4
    context_to_query = layers.matmul(layers.softmax(masked), q_pad)
    best = layers.reduce_max(masked, dim=2, keep_dim=True) + (p_mask - 1.0) * 1e4
    weight = layers.softmax(layers.transpose(best, [0, 2, 1]))
    query_to_context = layers.expand(layers.matmul(weight, p_pad), [1, maxlen_p, 1])
    joined = layers.concat([p_pad, context_to_query, p_pad * context_to_query, p_pad * query_to_context], axis=2)
    return layers.sequence_unpad(joined, length=p_len)


def pointer(fluid, x, labels):
    """A distribution over each passage's words and the cross entropy of the place to be found."""
    layers = fluid.layers
    probs = layers.sequence_softmax(input=layers.fc(input=dropout(fluid, x), size=1, act=None))
    cost = layers.cross_entropy(input=layers.concat([1.0 - probs, probs], axis=1), label=layers.cast(labels, "int64"))
    return probs, layers.sequence_pool(layers.elementwise_mul(cost, labels, axis=0), "sum")


def build(fluid):
    layers = fluid.layers
    q_ids = layers.data(name="q_ids", shape=[1], dtype="int64", lod_level=1)
    p_ids = layers.data(name="p_ids", shape=[1], dtype="int64", lod_level=1)
    start = layers.data(name="start_labels", shape=[1], dtype="float32", lod_level=1)
    end = layers.data(name="end_labels", shape=[1], dtype="float32", lod_level=1)

    def embed(ids):
        return layers.embedding(
            input=ids, size=[WORDS, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="embs", trainable=True)
        )

    question = bi_lstm_encoder(fluid, "encoder", embed(q_ids))
    passage = bi_lstm_encoder(fluid, "encoder", embed(p_ids))
    flow = attention_flow(fluid, passage, question)
    fused = bi_lstm_encoder(fluid, "fusion", dropout(fluid, layers.fc(flow, 8, act="relu")))
    start_probs, start_cost = pointer(fluid, fused, start)
    end_probs, end_cost = pointer(fluid, bi_lstm_encoder(fluid, "end", fused), end)
    loss = layers.mean(layers.elementwise_add(start_cost, end_cost))

    def train():
        fluid.optimizer.Adam(
            learning_rate=0.01, regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-4)
        ).minimize(loss)

    return Model(loss, repeat(data, 5), [start_probs, end_probs], train)
