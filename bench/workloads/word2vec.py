"""N-gram word2vec: four context words share one sparse embedding, vocabulary 2,073, batch 100, SGD."""

import described
import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, BATCH = 2073, 32, 256, 100
FEED = {"w%d" % k: RNG.randint(0, VOCABULARY, (BATCH, 1)).astype("int64") for k in range(5)}


def loss(n, feed):
    vectors = [n.embed(feed["w%d" % k], VOCABULARY, WIDTH, name="shared", sparse=True) for k in range(4)]
    hidden = n.fc(n.concat(vectors, 1), HIDDEN, act="sigmoid")
    return n.classify(hidden, VOCABULARY, feed["w4"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("sgd", 0.001))
