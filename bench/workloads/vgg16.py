"""VGG16 on 224x224 images, batch 2, Momentum with L2 decay. Dropout is left out, so that numbers can be compared."""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH = 2
FEED = {
    "image": RNG.randn(BATCH, 3, 224, 224).astype("float32"),
    "label": RNG.randint(0, 1000, (BATCH, 1)).astype("int64"),
}


def loss(n, feed):
    x = n.image(feed["image"])
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = n.conv(x, filters, 3, bias=True, act="relu")
        x = n.max_pool(x, 2, 2)
    x = n.fc(x, 4096, act="relu")
    x = n.fc(x, 4096, act="relu")
    return n.classify(x, 1000, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(
    loss, FEED, described.Optimizer("momentum", 0.001, decay=5e-4)
)
