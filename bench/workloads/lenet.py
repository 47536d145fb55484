"""LeNet with batch normalisation on 28x28 images, batch 64, Adam."""

import described
import numpy as np

RNG = np.random.RandomState(0)
FEED = {
    "image": RNG.randn(64, 1, 28, 28).astype("float32"),
    "label": RNG.randint(0, 10, (64, 1)).astype("int64"),
}
TOLERANCE = described.ADAM_TOLERANCE


def loss(n, feed):
    x = n.image(feed["image"])
    for filters in (20, 50):
        x = n.norm(n.conv(x, filters, 5, padding=0, bias=True), act="relu")
        x = n.max_pool(x, 2, 2)
    x = n.fc(x, 500, act="relu")
    return n.classify(x, 10, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("adam", 0.001))
