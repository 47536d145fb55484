"""Word vectors: skip-gram with fed negatives (Mikolov et al., 2013), noise-contrastive estimation, hierarchical softmax."""

import numpy as np

from program_model import Model, repeat

VARIANTS = ("negatives", "nce", "hsigmoid", "custom_tree")
BATCH, WORDS, WIDTH, NEGATIVES, CONTEXT = 8, 20, 6, 4, 4


def data(rng):
    feed = {
        "input_word": rng.randint(0, WORDS, (BATCH, 1)).astype("int64"),
        "true_label": rng.randint(0, WORDS, (BATCH, 1)).astype("int64"),
        "neg_label": rng.randint(0, WORDS, (BATCH, NEGATIVES)).astype("int64"),
        "context": rng.randint(0, WORDS, (BATCH, CONTEXT)).astype("int64"),
    }
    paths = [path_of(int(word)) for word in feed["true_label"][:, 0]]
    feed["path_table"] = np.array([p[0] for p in paths], "int64")
    feed["path_code"] = np.array([p[1] for p in paths], "int64")
    return feed


def path_of(word, depth=6):
    """The inner nodes from root to leaf of a complete tree over the words, and the turns taken; -1 ends the path."""
    node, table, code = word + WORDS, [], []
    while node > 1:
        table.append(node // 2 - 1)
        code.append(node % 2)
        node //= 2
    rest = [-1] * (depth - len(table))
    return table[::-1] + rest, code[::-1] + rest


def skip_gram(fluid, word, label, negatives):
    layers = fluid.layers
    reach = 0.5 / WIDTH
    embed = fluid.initializer.UniformInitializer(low=-reach, high=reach)
    input_emb = fluid.embedding(
        word, [WORDS, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="emb", initializer=embed)
    )
    input_emb = layers.reshape(input_emb, [-1, WIDTH])

    def looked_up(ids, size, name):
        return fluid.embedding(ids, [WORDS, size], is_sparse=True, param_attr=fluid.ParamAttr(name=name))

    true_w = layers.reshape(looked_up(label, WIDTH, "emb_w"), [-1, WIDTH])
    true_b = layers.reshape(looked_up(label, 1, "emb_b"), [-1, 1])
    neg_w, neg_b = (
        looked_up(negatives, WIDTH, "emb_w"),
        layers.reshape(looked_up(negatives, 1, "emb_b"), [-1, NEGATIVES]),
    )
    true_logits = layers.reduce_sum(input_emb * true_w, dim=1, keep_dim=True) + true_b
    neg = layers.matmul(layers.reshape(input_emb, [-1, 1, WIDTH]), neg_w, transpose_y=True)
    neg_logits = layers.reshape(neg, [-1, NEGATIVES]) + neg_b
    ones = layers.fill_constant_batch_size_like(true_logits, shape=[1, 1], value=1.0, dtype="float32")
    zeros = layers.fill_constant_batch_size_like(true_logits, shape=[1, NEGATIVES], value=0.0, dtype="float32")
    true_xent = layers.sigmoid_cross_entropy_with_logits(true_logits, ones)
    neg_xent = layers.sigmoid_cross_entropy_with_logits(neg_logits, zeros)
    cost = layers.elementwise_add(layers.reduce_sum(true_xent, dim=1), layers.reduce_sum(neg_xent, dim=1))
    return layers.reduce_mean(cost), [true_logits, neg_logits]


def neural_model(fluid, context, label, variant):
    """The n-gram model: the context's embeddings side by side, a hidden layer, a cheap output layer."""
    layers = fluid.layers
    emb = fluid.embedding(context, [WORDS, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="emb"))
    hidden = layers.fc(layers.reshape(emb, [-1, CONTEXT * WIDTH]), 8, act="sigmoid")
    if variant == "nce":
        # All the noise is one word (but for one draw in 1e6): draws that two implementations share.
        noise = [1e-6 / (WORDS - 1)] * WORDS
        noise[3] = 1.0 - 1e-6
        cost = layers.nce(
            input=hidden,
            label=label,
            num_total_classes=WORDS,
            num_neg_samples=NEGATIVES,
            sampler="custom_dist",
            custom_dist=noise,
            is_sparse=True,
            param_attr="nce.w",
            bias_attr="nce.b",
        )
    elif variant == "hsigmoid":
        cost = layers.hsigmoid(input=hidden, label=label, num_classes=WORDS, param_attr="hs.w", bias_attr="hs.b")
    else:
        table = fluid.data(name="path_table", shape=[None, 6], dtype="int64")
        code = fluid.data(name="path_code", shape=[None, 6], dtype="int64")
        cost = layers.hsigmoid(
            input=hidden,
            label=label,
            num_classes=WORDS - 1,
            path_table=table,
            path_code=code,
            is_custom=True,
            is_sparse=True,
            param_attr="hs.w",
            bias_attr="hs.b",
        )
    return layers.mean(cost), [hidden, cost]


def build(fluid, variant):
    label = fluid.data(name="true_label", shape=[None, 1], dtype="int64")
    if variant == "negatives":
        word = fluid.data(name="input_word", shape=[None, 1], dtype="int64")
        negatives = fluid.data(name="neg_label", shape=[None, NEGATIVES], dtype="int64")
        loss, fetch = skip_gram(fluid, word, label, negatives)
        used = ("input_word", "true_label", "neg_label")
    else:
        context = fluid.data(name="context", shape=[None, CONTEXT], dtype="int64")
        loss, fetch = neural_model(fluid, context, label, variant)
        used = ("context", "true_label") + (("path_table", "path_code") if variant == "custom_tree" else ())

    def train():
        schedule = fluid.layers.exponential_decay(learning_rate=0.5, decay_steps=2, decay_rate=0.9, staircase=True)
        fluid.optimizer.SGD(learning_rate=schedule).minimize(loss)

    feeds = [{k: v for k, v in feed.items() if k in used} for feed in repeat(data, 5)]
    return Model(loss, feeds, fetch, train)
