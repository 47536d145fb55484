"""Transformer base translates 4 sentences of 24 words by beam search: 4 beams, 16 steps, keys and values kept.

The sum of the final scores is what is compared.
"""

import described
import numpy as np
from workloads.transformer import HEADS, LAYERS, VOCABULARY, WIDTH, feed_forward

RNG = np.random.RandomState(0)
SENTENCES, BEAM, SOURCE, STEPS = 4, 4, 24, 16
ROWS = SENTENCES * BEAM
FEED = {
    "source": RNG.randint(1, VOCABULARY, (SENTENCES, SOURCE, 1)).astype("int64"),
    "source_at": np.tile(np.arange(SOURCE), (SENTENCES, 1))[:, :, None].astype("int64"),
    "row": np.repeat(np.arange(SENTENCES), BEAM).astype("int64"),
    "start": np.ones((ROWS, 1), "int64"),
    # All beams of a sentence begin alike: only the first may win the first step.
    "scores": np.tile(np.array([0.0] + [-1e9] * (BEAM - 1), "float32"), SENTENCES).reshape(-1, 1),
}
LEFT_OUT = {"jax": "keys and values grow by a step, so that JAX would compile each step of the loop by itself"}


def heads(n, x):
    """[rows, time, WIDTH] -> [rows, heads, time, WIDTH / heads], projected."""
    return n.transpose(n.reshape(n.fc(x, WIDTH, dims=2, bias=False), [0, 0, HEADS, WIDTH // HEADS]), [0, 2, 1, 3])


def attend(n, q, k, v):
    weights = n.softmax(n.matmul(q, k, transpose_y=True, alpha=(WIDTH // HEADS) ** -0.5))
    joined = n.reshape(n.transpose(n.matmul(weights, v), [0, 2, 1, 3]), [0, 0, WIDTH])
    return n.fc(joined, WIDTH, dims=2, bias=False)


def encode(n, feed):
    x = n.scale(n.embed(feed["source"], VOCABULARY, WIDTH), WIDTH**0.5)
    x = n.add(x, n.embed(feed["source_at"], SOURCE, WIDTH))
    for _ in range(LAYERS):
        y = n.layer_norm(x)
        x = n.add(x, attend(n, heads(n, y), heads(n, y), heads(n, y)))
        x = n.add(x, feed_forward(n, n.layer_norm(x)))
    return n.layer_norm(x)


def loss(n, feed):
    memory = n.rows(encode(n, feed), feed["row"])
    kept = [(heads(n, memory), heads(n, memory)) for _ in range(LAYERS)]

    def turn(at, state):
        words, scores, caches = state[0], state[1], state[2:]
        x = n.scale(n.reshape(n.embed(words, VOCABULARY, WIDTH), [ROWS, 1, WIDTH]), WIDTH**0.5)
        x = n.add(x, n.reshape(n.embed(n.repeated(at, ROWS), STEPS, WIDTH), [ROWS, 1, WIDTH]))
        grown = []
        for layer in range(LAYERS):
            y = n.layer_norm(x)
            q = heads(n, y)
            k, v = (n.concat([cache, heads(n, y)], 2) for cache in caches[2 * layer : 2 * layer + 2])
            grown += [k, v]
            x = n.add(x, attend(n, q, k, v))
            x = n.add(x, attend(n, heads(n, n.layer_norm(x)), *kept[layer]))
            x = n.add(x, feed_forward(n, n.layer_norm(x)))
        logits = n.reshape(n.fc(n.layer_norm(x), VOCABULARY, dims=2, bias=False), [ROWS, VOCABULARY])
        words, scores, parents = n.best(logits, scores, SENTENCES, BEAM)
        return [words, scores] + [n.rows(cache, parents) for cache in grown]

    empty = [n.zeros([ROWS, HEADS, 0, WIDTH // HEADS]) for _ in range(2 * LAYERS)]
    return n.total(n.loop(STEPS, turn, [feed["start"], feed["scores"]] + empty)[1])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, None)
