"""Tagger: two bidirectional GRU layers under a linear-chain CRF, 57 tags, 32 unpadded sentences, Adam."""

import described
import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, TAGS, WIDTH, HIDDEN, BATCH = 20940, 57, 128, 128, 32
LENGTHS = RNG.randint(5, 60, BATCH)
WORDS = int(LENGTHS.sum())
FEED = {
    "words": described.Sequences(RNG.randint(0, VOCABULARY, (WORDS, 1)).astype("int64"), LENGTHS),
    "tags": described.Sequences(RNG.randint(0, TAGS, (WORDS, 1)).astype("int64"), LENGTHS),
}
LEFT_OUT = {"paddle3": "it has no CRF layer and no GRU of Fluid's equations"}
TOLERANCE = described.ADAM_TOLERANCE


def loss(n, feed):
    x = n.embed(feed["words"], VOCABULARY, WIDTH)
    for _ in range(2):
        ahead = n.gru(n.rows_fc([x], 3 * HIDDEN), HIDDEN)
        back = n.gru(n.rows_fc([x], 3 * HIDDEN), HIDDEN, reverse=True)
        x = n.concat([ahead, back], n.last)
    return n.crf(n.rows_fc([x], TAGS), feed["tags"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("adam", 0.001))
