"""ResNet-50 on 224x224 images, batch 8, Momentum with L2 decay."""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH = 8
FEED = {
    "image": RNG.randn(BATCH, 3, 224, 224).astype("float32"),
    "label": RNG.randint(0, 1000, (BATCH, 1)).astype("int64"),
}
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def conv_norm(n, x, filters, size, stride=1, act=None):
    return n.norm(n.conv(x, filters, size, stride), act=act)


def block(n, x, filters, stride, project):
    y = conv_norm(n, x, filters, 1, act="relu")
    y = conv_norm(n, y, filters, 3, stride, "relu")
    y = conv_norm(n, y, 4 * filters, 1)
    if project:
        x = conv_norm(n, x, 4 * filters, 1, stride)
    return n.add(x, y, act="relu")


def loss(n, feed):
    x = conv_norm(n, n.image(feed["image"]), 64, 7, 2, "relu")
    x = n.max_pool(x, 3, 2, 1)
    for filters, count, stride in STAGES:
        for k in range(count):
            x = block(n, x, filters, stride if k == 0 else 1, k == 0)
    return n.classify(n.global_average(x), 1000, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(
    loss, FEED, described.Optimizer("momentum", 0.001, decay=1e-4)
)
