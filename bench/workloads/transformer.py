"""Transformer base (Vaswani et al., 2017) on 8 pairs of 48 and 44 words, vocabulary 10,000, Adam; without dropout.

Normalisation stands before each part, as in Fluid's own model; word tables are not shared.
"""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH, SOURCE, TARGET, VOCABULARY = 8, 48, 44, 10000
WIDTH, HEADS, INNER, LAYERS = 512, 8, 2048, 6


def positions(time):
    return np.tile(np.arange(time), (BATCH, 1))[:, :, None].astype("int64")


def blocked(lengths, time):
    """-1e9 where a key is padding, for every query."""
    mask = np.arange(time)[None, :] >= lengths[:, None]
    return (-1e9 * mask[:, None, None, :]).astype("float32")


SOURCES, TARGETS = RNG.randint(SOURCE // 2, SOURCE + 1, BATCH), RNG.randint(TARGET // 2, TARGET + 1, BATCH)
FUTURE = np.triu(np.full((TARGET, TARGET), -1e9, "float32"), 1)[None, None]
FEED = {
    "source": RNG.randint(1, VOCABULARY, (BATCH, SOURCE, 1)).astype("int64"),
    "source_at": positions(SOURCE),
    "target": RNG.randint(1, VOCABULARY, (BATCH, TARGET, 1)).astype("int64"),
    "target_at": positions(TARGET),
    "source_bias": np.tile(blocked(SOURCES, SOURCE), (1, HEADS, SOURCE, 1)),
    "target_bias": np.minimum(np.tile(blocked(TARGETS, TARGET), (1, HEADS, TARGET, 1)), FUTURE),
    "cross_bias": np.tile(blocked(SOURCES, SOURCE), (1, HEADS, TARGET, 1)),
    "label": RNG.randint(1, VOCABULARY, (BATCH * TARGET, 1)).astype("int64"),
}
OPTIMIZER = described.Optimizer("adam", 0.0001)
TOLERANCE = described.ADAM_TOLERANCE


def attention(n, query, memory, bias):
    def heads(x):
        return n.transpose(n.reshape(n.fc(x, WIDTH, dims=2, bias=False), [0, 0, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])

    q, k, v = heads(query), heads(memory), heads(memory)
    weights = n.softmax(n.add(n.matmul(q, k, transpose_y=True, alpha=(WIDTH // HEADS) ** -0.5), bias))
    joined = n.reshape(n.transpose(n.matmul(weights, v), [0, 2, 1, 3]), [0, 0, WIDTH])
    return n.fc(joined, WIDTH, dims=2, bias=False)


def feed_forward(n, x):
    return n.fc(n.fc(x, INNER, act="relu", dims=2), WIDTH, dims=2)


def embed(n, words, at, time):
    return n.add(n.scale(n.embed(words, VOCABULARY, WIDTH), WIDTH**0.5), n.embed(at, time, WIDTH))


def loss(n, feed):
    x = embed(n, feed["source"], feed["source_at"], SOURCE)
    for _ in range(LAYERS):
        y = n.layer_norm(x)
        x = n.add(x, attention(n, y, y, feed["source_bias"]))
        x = n.add(x, feed_forward(n, n.layer_norm(x)))
    memory = n.layer_norm(x)
    x = embed(n, feed["target"], feed["target_at"], TARGET)
    for _ in range(LAYERS):
        y = n.layer_norm(x)
        x = n.add(x, attention(n, y, y, feed["target_bias"]))
        x = n.add(x, attention(n, n.layer_norm(x), memory, feed["cross_bias"]))
        x = n.add(x, feed_forward(n, n.layer_norm(x)))
    logits = n.fc(n.layer_norm(x), VOCABULARY, dims=2, bias=False)
    return n.cross_entropy(n.reshape(logits, [-1, VOCABULARY]), feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, OPTIMIZER)
