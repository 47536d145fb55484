"""Click-through rate: 26 sparse slots share one table of a million ids, 13 dense features, three layers, batch 512, SGD."""

import described
import numpy as np

RNG = np.random.RandomState(0)
IDS, WIDTH, SLOTS, BATCH, HIDDEN = 1000001, 10, 26, 512, 400
FEED = {"dense": RNG.uniform(0, 1, (BATCH, 13)).astype("float32")}
# Real ids repeat: a few make up most of a slot.
FEED.update(("C%d" % k, np.minimum(RNG.zipf(1.3, (BATCH, 1)), IDS - 1).astype("int64")) for k in range(SLOTS))
FEED["label"] = RNG.randint(0, 2, (BATCH, 1)).astype("int64")


def loss(n, feed):
    vectors = [n.embed(feed["C%d" % k], IDS, WIDTH, name="table", sparse=True) for k in range(SLOTS)]
    x = n.concat(vectors + [feed["dense"]], 1)
    for _ in range(3):
        x = n.fc(x, HIDDEN, act="relu")
    return n.classify(x, 2, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("sgd", 0.001))
