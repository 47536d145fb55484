"""Torch modules of the same arithmetic as the models of bench/inference_models.py, for torch.compile."""

import inference_models as models
import torch
from torch import nn

SEPARABLE, BERT = models.SEPARABLE, models.BERT


def unit(i, o, k, s=1, g=1, act=None):
    """Convolution without bias, batch normalisation, activation (None: relu, False: none)."""
    parts = [nn.Conv2d(i, o, k, s, (k - 1) // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*parts, *([] if act is False else [nn.ReLU() if act is None else act]))


def leaky(i, o, k, s=1):
    return unit(i, o, k, s, act=nn.LeakyReLU(0.02))


class Bottleneck(nn.Module):
    def __init__(self, i, width, stride):
        super().__init__()
        self.body = nn.Sequential(unit(i, width, 1), unit(width, width, 3, stride), unit(width, width * 4, 1, act=False))
        self.short = nn.Identity() if i == width * 4 else unit(i, width * 4, 1, stride, act=False)

    def forward(self, x):
        return torch.relu(self.body(x) + self.short(x))


def resnet50():
    parts, i = [unit(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)], 64
    for stage, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(depth):
            parts.append(Bottleneck(i, width, 2 if stage and not block else 1))
            i = width * 4
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, 1000))


def separable(upto=13, start=0, width=32):
    parts = [] if start else [unit(3, 32, 3, 2)]
    for out, stride in SEPARABLE[start:upto]:
        parts += [unit(width, width, 3, stride, width), unit(width, out, 1)]
        width = out
    return nn.Sequential(*parts)


def mobilenet():
    return nn.Sequential(separable(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


def vgg16():
    parts, i = [], 3
    for width, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(depth):
            parts += [nn.Conv2d(i, width, 3, padding=1), nn.ReLU()]
            i = width
        parts.append(nn.MaxPool2d(2, 2))
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*parts, nn.Flatten(), *head)


class Ssd(nn.Module):
    """The body, the heads and the decoding of boxes; no suppression."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([separable(11), separable(13, 11, 512)])
        widths, i = [512, 1024], 1024
        for out in (512, 256, 256, 128):
            self.parts.append(nn.Sequential(unit(i, out // 2, 1), unit(out // 2, out, 3, 2)))
            widths.append(out)
            i = out
        priors = [3, 6, 6, 6, 6, 6]
        self.boxes = nn.ModuleList([nn.Conv2d(w, p * 4, 1) for w, p in zip(widths, priors)])
        self.scores = nn.ModuleList([nn.Conv2d(w, p * 21, 1) for w, p in zip(widths, priors)])

    def forward(self, x):
        boxes, scores = [], []
        for part, box, score in zip(self.parts, self.boxes, self.scores):
            x = part(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
            scores.append(score(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 21))
        found = torch.cat(boxes, 1)
        centre, half = found[..., :2] * 0.1 + 0.5, torch.exp(found[..., 2:] * 0.2) * 0.1
        return torch.cat([centre - half, centre + half], -1), torch.softmax(torch.cat(scores, 1), -1)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(leaky(width, width // 2, 1), leaky(width // 2, width, 3))

    def forward(self, x):
        return x + self.body(x)


class Yolo(nn.Module):
    """The body, three heads and their boxes; no suppression."""

    def __init__(self):
        super().__init__()
        self.stem, self.stages, i = leaky(3, 32, 3), nn.ModuleList(), 32
        for width, depth in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
            self.stages.append(nn.Sequential(leaky(i, width, 3, 2), *[Residual(width) for _ in range(depth)]))
            i = width
        self.heads, self.wide, self.outs, self.routes = (nn.ModuleList() for _ in range(4))
        for i, width in ((1024, 512), (768, 256), (384, 128)):
            units = [leaky(i, width, 1)]
            units += [leaky(width, width * 2, 3), leaky(width * 2, width, 1)] * 2
            self.heads.append(nn.Sequential(*units))
            self.wide.append(leaky(width, width * 2, 3))
            self.outs.append(nn.Conv2d(width * 2, 255, 1))
            self.routes.append(leaky(width, width // 2, 1))

    def forward(self, x, size):
        x, kept, found = self.stem(x), [], []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        route = None
        for level, features in enumerate(kept[:1:-1]):
            y = self.heads[level](features if route is None else torch.cat([route, features], 1))
            out = self.outs[level](self.wide[level](y))
            n, _, h, w = out.shape
            out = out.view(n, 3, 85, h * w).transpose(2, 3).reshape(n, -1, 85)
            middle, half, rest = torch.sigmoid(out[..., :2]), torch.exp(out[..., 2:4]) * 0.5, torch.sigmoid(out[..., 4:])
            found.append(torch.cat([middle - half, middle + half, rest[..., :1] * rest[..., 1:]], -1))
            route = nn.functional.interpolate(self.routes[level](y), scale_factor=2.0)
        return torch.cat(found, 1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(BERT["vocabulary"], 768)
        self.places = nn.Parameter(torch.zeros(1, BERT["length"], 768))
        self.norm = nn.LayerNorm(768)
        layer = nn.TransformerEncoderLayer(768, 12, 3072, 0.0, "gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)

    def forward(self, ids, mask):
        return self.layers(self.norm(self.words(ids) + self.places))


MODULES = {
    "resnet50": resnet50, "mobilenet": mobilenet, "vgg16": vgg16, "ssd_mobilenet": Ssd, "yolov3": Yolo, "bert": Encoder,
}  # fmt: skip


def torch_module(name):
    """A module that computes as much as the model of that name."""
    return MODULES[name]().eval()
