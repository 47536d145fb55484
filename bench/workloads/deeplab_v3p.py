"""DeepLabv3+ with Xception-65 on one image of 513x513, 19 classes, Momentum with L2 decay.

The branch that pools the whole image has no batch norm: with one image it would see one value a channel, which torch
refuses and the others turn into zero.
"""

import described
import numpy as np

RNG = np.random.RandomState(0)
SIZE, CLASSES = 513, 19
FEED = {
    "image": RNG.randn(1, 3, SIZE, SIZE).astype("float32"),
    "label": RNG.randint(0, CLASSES, (SIZE * SIZE, 1)).astype("int64"),
}


def conv_norm(n, x, filters, size, stride=1, dilation=1, act="relu"):
    return n.norm(n.conv(x, filters, size, stride, dilation=dilation), act=act)


def separable(n, x, channels, filters, stride=1, dilation=1, act=None):
    x = n.norm(n.conv(x, channels, 3, stride, groups=channels, dilation=dilation), act=act)
    return n.norm(n.conv(x, filters, 1), act=act)


def block(n, x, channels, widths, stride=1, skip="conv", before=True):
    """Three separable convolutions; (result, what stands before the last one)."""
    y, width = x, channels
    for k, filters in enumerate(widths):
        if before:
            y = n.act(y, "relu")
        shallow = y
        y = separable(n, y, width, filters, stride if k == 2 else 1, act=None if before else "relu")
        width = filters
    if skip == "conv":
        return n.add(y, conv_norm(n, x, width, 1, stride, act=None)), shallow
    return (n.add(y, x) if skip == "sum" else y), shallow


def xception(n, image):
    """(map at 1/16 of the size, shallow map at 1/4)."""
    x = conv_norm(n, n.image(image), 32, 3, 2)
    x = conv_norm(n, x, 64, 3)
    x, _ = block(n, x, 64, (128, 128, 128), 2)
    x, shallow = block(n, x, 128, (256, 256, 256), 2)
    x, _ = block(n, x, 256, (728, 728, 728), 2)
    for _ in range(16):
        x, _ = block(n, x, 728, (728, 728, 728), skip="sum")
    x, _ = block(n, x, 728, (728, 1024, 1024))
    x, _ = block(n, x, 1024, (1536, 1536, 2048), skip=None, before=False)
    return x, shallow


def loss(n, feed):
    x, shallow = xception(n, feed["image"])
    small = SIZE // 16 + 1
    pooled = n.conv(n.global_average(x), 256, 1, bias=True, act="relu")
    branches = [n.resize(pooled, small, small), conv_norm(n, x, 256, 1)]
    branches += [separable(n, x, 2048, 256, dilation=d, act="relu") for d in (6, 12, 18)]
    x = conv_norm(n, n.channels(branches), 256, 1)
    shallow = conv_norm(n, shallow, 48, 1)
    quarter = SIZE // 4 + 1
    x = n.channels([n.resize(x, quarter, quarter), shallow])
    x = separable(n, x, 304, 256, act="relu")
    x = separable(n, x, 256, 256, act="relu")
    x = n.resize(n.conv(x, CLASSES, 1, bias=True), SIZE, SIZE)
    return n.cross_entropy(n.pixels(x), feed["label"])


fluid_model, torch_step, jax_step, paddle3_step = described.peers(
    loss, FEED, described.Optimizer("momentum", 0.001, decay=4e-5)
)
