"""YOLOv3 with Darknet-53 on one image of 320x320, 80 classes, 20 boxes, Momentum with L2 decay."""

import described
import numpy as np

RNG = np.random.RandomState(0)
BATCH, SIZE, CLASSES, BOXES, IGNORE = 1, 320, 80, 20, 0.7
ANCHORS = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326]
MASKS = ([6, 7, 8], [3, 4, 5], [0, 1, 2])
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
CORNER = RNG.uniform(0.1, 0.9, (BATCH, BOXES, 2))
FEED = {
    "image": RNG.uniform(-1, 1, (BATCH, 3, SIZE, SIZE)).astype("float32"),
    "box": np.concatenate([CORNER, RNG.uniform(0.03, 0.5, (BATCH, BOXES, 2))], 2).astype("float32"),
    "label": RNG.randint(0, CLASSES, (BATCH, BOXES)).astype("int32"),
}
LEFT_OUT = {"jax": "it has no loss of YOLOv3"}
OPTIMIZER = described.Optimizer("momentum", 0.0001, decay=5e-4)
# 72 batch norms of one image amplify rounding: gradients of the first step differ by 1e-3.
TOLERANCE = {"all": (1e-4, 5e-2)}


def conv_norm(n, x, filters, size, stride=1):
    return n.act(n.norm(n.conv(x, filters, size, stride)), "leaky_relu", slope=0.1)


def maps(n, image):
    """The three outputs [batch, 3 * (5 + CLASSES), h, w], the coarsest first."""
    x = conv_norm(n, n.image(image), 32, 3)
    found = []
    for filters, count in STAGES:
        x = conv_norm(n, x, filters, 3, 2)
        for _ in range(count):
            x = n.add(x, conv_norm(n, conv_norm(n, x, filters // 2, 1), filters, 3))
        found.append(x)
    outputs, route = [], None
    for k, x in enumerate(found[:1:-1]):
        width = 512 >> k
        if route is not None:
            x = n.channels([route, x])
        for _ in range(2):
            x = conv_norm(n, conv_norm(n, x, width, 1), 2 * width, 3)
        route = conv_norm(n, x, width, 1)
        outputs.append(n.conv(conv_norm(n, route, 2 * width, 3), 3 * (5 + CLASSES), 1, bias=True))
        if k < 2:
            route = n.double(conv_norm(n, route, width // 2, 1))
    return outputs


def fluid_loss(n, feed):
    losses = [
        n.layers.reduce_mean(
            n.layers.yolov3_loss(
                out, feed["box"], feed["label"], ANCHORS, MASKS[k], CLASSES, IGNORE, 32 >> k, use_label_smooth=False
            )
        )
        for k, out in enumerate(maps(n, feed["image"]))
    ]
    return n.layers.sum(losses)


fluid_model = described.peers(fluid_loss, FEED, OPTIMIZER)[0]


def torch_step(parameters, compiled=False):
    from described import torch_side

    def loss(n, feed):
        outputs = maps(n, feed["image"])
        return sum(torch_map_loss(out, feed, MASKS[k]).mean() for k, out in enumerate(outputs))

    return torch_side.step(loss, FEED, OPTIMIZER, parameters, compiled)


def overlap(a, b):
    """Intersection over union of boxes [..., (x, y, w, h)], centred, broadcast."""
    import torch

    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    inside = (high - low).clamp(min=0).prod(-1)
    return inside / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inside)


def torch_map_loss(out, feed, mask):
    """Loss [batch] of one map: cross entropy of places, objects and classes, distance of sizes."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    batch, _, height, width = out.shape
    box, label = feed["box"], feed["label"].long()
    anchors = torch.tensor(ANCHORS, dtype=torch.float32).view(-1, 2) / SIZE
    x = out.view(batch, len(mask), 5 + CLASSES, height, width)
    grid = torch.tensor([width, height], dtype=torch.float32)
    with torch.no_grad():
        where = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), -1)
        centre = (x[:, :, :2].sigmoid().permute(0, 1, 3, 4, 2) + where) / grid
        sizes = x[:, :, 2:4].exp().permute(0, 1, 3, 4, 2) * anchors[mask][:, None, None]
        predicted = torch.cat([centre, sizes], -1)
        best = overlap(predicted[..., None, :], box[:, None, None, None]).amax(-1)
        target = torch.where(best > IGNORE, -1.0, 0.0)  # -1: neither object nor background
        shapes = torch.cat([torch.zeros_like(box[..., :2]), box[..., 2:]], -1)[:, :, None]
        prior = torch.cat([torch.zeros_like(anchors), anchors], -1)
        owner = overlap(shapes, prior).argmax(-1)
        image, number = torch.nonzero(torch.isin(owner, torch.tensor(mask)), as_tuple=True)
        anchor = owner[image, number]
        level = anchor - min(mask)
        cell = (box[image, number, :2] * grid).long()
        target[image, level, cell[:, 1], cell[:, 0]] = 1.0
    own = x[image, level, :, cell[:, 1], cell[:, 0]]
    truth = box[image, number]
    place = truth[:, :2] * grid - cell
    size = torch.log(truth[:, 2:] / anchors[anchor])
    weight = 2.0 - truth[:, 2:].prod(-1)
    of_place = entropy(own[:, :2], place, reduction="none").sum(1)
    of_size = (own[:, 2:4] - size).abs().sum(1)
    classes = torch.nn.functional.one_hot(label[image, number], CLASSES).float()
    of_class = entropy(own[:, 5:], classes, reduction="none").sum(1)
    loss = torch.zeros(batch).index_add(0, image, weight * (of_place + of_size) + of_class)
    objects = entropy(x[:, :, 4], target.clamp(min=0), reduction="none")
    return loss + torch.where(target >= 0, objects, 0.0).sum((1, 2, 3))


def paddle3_step(parameters):
    import paddle
    from described import paddle3_side

    def loss(n, feed):
        outputs = maps(n, feed["image"])
        losses = [
            paddle.vision.ops.yolo_loss(
                out, feed["box"], feed["label"], ANCHORS, MASKS[k], CLASSES, IGNORE, 32 >> k, use_label_smooth=False
            ).mean()
            for k, out in enumerate(outputs)
        ]
        return losses[0] + losses[1] + losses[2]

    return paddle3_side.step(loss, FEED, OPTIMIZER, parameters)
