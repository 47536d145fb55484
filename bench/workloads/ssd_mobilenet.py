"""SSD over MobileNetV1 on 4 images of 300x300, 21 classes, about 5 boxes an image, Momentum with L2 decay."""

import described
import numpy as np
from workloads.mobilenet_v1 import body

RNG = np.random.RandomState(0)
BATCH, SIZE, CLASSES = 4, 300, 21
COUNTS = [5, 3, 7, 5]
LOW = RNG.uniform(0.0, 0.6, (sum(COUNTS), 2))
FEED = {
    "image": RNG.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
    "box": described.Sequences(
        np.concatenate([LOW, LOW + RNG.uniform(0.1, 0.4, LOW.shape)], 1).astype("float32"), COUNTS
    ),
    "label": described.Sequences(RNG.randint(1, CLASSES, (sum(COUNTS), 1)).astype("int32"), COUNTS),
}
RATIOS = [[2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0]]
LEFT_OUT = dict.fromkeys(
    ("torch", "torch-compiled", "jax", "paddle3"), "it has no multi-box head, matching and mining of hard negatives"
)


def extra(n, x, narrow, wide):
    x = n.norm(n.conv(x, narrow, 1), act="relu")
    return n.norm(n.conv(x, wide, 3, 2), act="relu")


def loss(n, feed):
    maps = list(body(n, feed["image"]))
    for narrow, wide in ((256, 512), (128, 256), (128, 256), (64, 128)):
        maps.append(extra(n, maps[-1], narrow, wide))
    places, scores, box, variance = n.layers.multi_box_head(
        inputs=maps, image=feed["image"], num_classes=CLASSES, min_ratio=20, max_ratio=90, aspect_ratios=RATIOS,
        min_sizes=[60.0, 105.0, 150.0, 195.0, 240.0, 285.0], max_sizes=[[], 150.0, 195.0, 240.0, 285.0, 300.0],
        base_size=SIZE, offset=0.5, flip=True,
    )  # fmt: skip
    return n.layers.reduce_sum(n.layers.ssd_loss(places, scores, feed["box"], feed["label"], box, variance))


fluid_model = described.peers(loss, FEED, described.Optimizer("momentum", 0.0001, decay=5e-5))[0]
