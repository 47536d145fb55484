"""SE-ResNeXt-50 (32 groups, reduction 16) on 224x224 images, batch 4, Momentum with L2 decay; without dropout."""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH, GROUPS, REDUCTION = 4, 32, 16
FEED = {
    "image": RNG.randn(BATCH, 3, 224, 224).astype("float32"),
    "label": RNG.randint(0, 1000, (BATCH, 1)).astype("int64"),
}
STAGES = ((128, 3, 1), (256, 4, 2), (512, 6, 2), (1024, 3, 2))


def conv_norm(n, x, filters, size, stride=1, groups=1, act=None):
    return n.norm(n.conv(x, filters, size, stride, groups=groups), act=act)


def block(n, x, filters, stride, project):
    y = conv_norm(n, x, filters, 1, act="relu")
    y = conv_norm(n, y, filters, 3, stride, GROUPS, "relu")
    y = conv_norm(n, y, 2 * filters, 1)
    squeeze = n.fc(n.global_average(y), 2 * filters // REDUCTION, act="relu")
    y = n.scaled_channels(y, n.fc(squeeze, 2 * filters, act="sigmoid"))
    if project:
        x = conv_norm(n, x, 2 * filters, 1, stride)
    return n.add(x, y, act="relu")


def loss(n, feed):
    x = conv_norm(n, n.image(feed["image"]), 64, 7, 2, act="relu")
    x = n.max_pool(x, 3, 2, 1)
    for filters, count, stride in STAGES:
        for k in range(count):
            x = block(n, x, filters, stride if k == 0 else 1, k == 0)
    return n.classify(n.global_average(x), 1000, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(
    loss, FEED, described.Optimizer("momentum", 0.001, decay=1.2e-4)
)
