"""MobileNetV1 on 224x224 images, batch 8, Momentum with L2 decay."""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH = 8
FEED = {
    "image": RNG.randn(BATCH, 3, 224, 224).astype("float32"),
    "label": RNG.randint(0, 1000, (BATCH, 1)).astype("int64"),
}
# (channels in, channels out, stride) of each depthwise separable pair
PAIRS = (
    (32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1),
    (512, 512, 1), (512, 512, 1), (512, 512, 1), (512, 512, 1), (512, 1024, 2), (1024, 1024, 1),
)  # fmt: skip


def separable(n, x, channels, filters, stride):
    x = n.norm(n.conv(x, channels, 3, stride, groups=channels), act="relu")
    return n.norm(n.conv(x, filters, 1), act="relu")


def body(n, image):
    """(map after the 11th pair, last map)."""
    x = n.norm(n.conv(n.image(image), 32, 3, 2), act="relu")
    for k, (channels, filters, stride) in enumerate(PAIRS):
        x = separable(n, x, channels, filters, stride)
        if k == 10:
            middle = x
    return middle, x


def loss(n, feed):
    return n.classify(n.global_average(body(n, feed["image"])[1]), 1000, feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(
    loss, FEED, described.Optimizer("momentum", 0.001, decay=4e-5)
)
