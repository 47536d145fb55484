"""Torch modules that compute what the models of bench/inference_models.py compute, with the parameters of a saved one.

A module lists its parameters in the order in which the saved Program's operators read them (`ordered`).
"""

import inference_models as models
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import millstream.fluid as fluid

SEPARABLE, BERT, LAC = models.SEPARABLE, models.BERT, models.LAC


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


def resnet50(folder):
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


def mobilenet(folder):
    return nn.Sequential(separable(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


class Half(nn.Module):
    """What Fluid's dropout of 0.5 does in a test."""

    def forward(self, x):
        return x * 0.5


def vgg16(folder):
    parts, i = [], 3
    for width, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(depth):
            parts += [nn.Conv2d(i, width, 3, padding=1), nn.ReLU()]
            i = width
        parts.append(nn.MaxPool2d(2, 2))
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(), Half(), nn.Linear(4096, 4096), nn.ReLU(), Half(), nn.Linear(4096, 1000)]
    return nn.Sequential(*parts, nn.Flatten(), *head)


class Ssd(nn.Module):
    """The body, the heads and the decoding of boxes around the priors of the saved model; no suppression."""

    def __init__(self, folder):
        super().__init__()
        self.parts = nn.ModuleList([separable(11), separable(13, 11, 512)])
        widths, i = [512, 1024], 1024
        for out in (512, 256, 256, 128):
            self.parts.append(nn.Sequential(unit(i, out // 2, 1), unit(out // 2, out, 3, 2)))
            widths.append(out)
            i = out
        priors = [3, 6, 6, 6, 6, 6]
        heads = [(nn.Conv2d(w, p * 4, 1), nn.Conv2d(w, p * 21, 1)) for w, p in zip(widths, priors)]
        self.heads = nn.ModuleList([nn.ModuleList(pair) for pair in heads])
        boxes, variances = self.priors(folder)
        size = boxes[:, 2:] - boxes[:, :2]
        self.register_buffer("middle", boxes[:, :2] + size / 2)
        self.register_buffer("size", size)
        self.register_buffer("variances", variances)

    @staticmethod
    def priors(folder):
        program, scope, _ = models.parameters(folder)
        coder = next(op for op in program.global_block().ops if op.type == "box_coder")
        names = [*coder.input("PriorBox"), *coder.input("PriorBoxVar")]
        with fluid.scope_guard(scope):
            found = fluid.Executor().run(program, feed=models.request("ssd_mobilenet", 1), fetch_list=names)
        return [torch.from_numpy(np.array(a)) for a in found]

    def forward(self, x):
        boxes, scores = [], []
        for part, (box, score) in zip(self.parts, self.heads):
            x = part(x)
            boxes.append(box(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
            scores.append(score(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 21))
        found = torch.cat(boxes, 1) * self.variances
        centre, half = found[..., :2] * self.size + self.middle, torch.exp(found[..., 2:]) * self.size / 2
        return torch.cat([centre - half, centre + half], -1), torch.softmax(torch.cat(scores, 1), -1)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(leaky(width, width // 2, 1), leaky(width // 2, width, 3))

    def forward(self, x):
        return x + self.body(x)


class Level(nn.Module):
    """One head of YOLOv3."""

    def __init__(self, i, width):
        super().__init__()
        units = [leaky(i, width, 1)]
        for _ in range(2):
            units += [leaky(width, width * 2, 3), leaky(width * 2, width, 1)]
        self.units = nn.Sequential(*units)
        self.wide = leaky(width, width * 2, 3)
        self.out = nn.Conv2d(width * 2, 255, 1)
        self.route = leaky(width, width // 2, 1) if width > 128 else nn.Identity()

    def forward(self, x):
        y = self.units(x)
        return self.out(self.wide(y)), self.route(y)


class Yolo(nn.Module):
    """The body, three heads and their boxes; no suppression."""

    def __init__(self, folder):
        super().__init__()
        self.stem, self.stages, i = leaky(3, 32, 3), nn.ModuleList(), 32
        for width, depth in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
            self.stages.append(nn.Sequential(leaky(i, width, 3, 2), *[Residual(width) for _ in range(depth)]))
            i = width
        self.heads = nn.ModuleList([Level(*sizes) for sizes in ((1024, 512), (768, 256), (384, 128))])
        anchors = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326]
        for level in range(3):
            self.register_buffer(f"anchors{level}", torch.tensor(anchors[12 - 6 * level : 18 - 6 * level]).view(3, 1, 1, 2))

    def boxes(self, out, level, size):
        """As yolo_box gives them: corners in pixels inside the image, class scores."""
        n, _, h, w = out.shape
        out = out.view(n, 3, 85, h, w).permute(0, 1, 3, 4, 2)
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        image = size.float().flip(1).view(n, 1, 1, 1, 2)
        grid = torch.stack([xs, ys], -1).float()
        middle = (torch.sigmoid(out[..., :2]) + grid) * image / torch.tensor([w, h])
        half = torch.exp(out[..., 2:4]) * getattr(self, f"anchors{level}") * image / ((32 >> level) * h) / 2
        low, high = (middle - half).clamp_min(0), torch.minimum(middle + half, image - 1)
        scores = torch.sigmoid(out[..., 4:5]) * torch.sigmoid(out[..., 5:])
        return torch.cat([low, high], -1).reshape(n, -1, 4), scores.reshape(n, -1, 80)

    def forward(self, x, size):
        x, kept, found = self.stem(x), [], []
        for stage in self.stages:
            x = stage(x)
            kept.append(x)
        route = None
        for level, features in enumerate(kept[:1:-1]):
            out, route = self.heads[level](features if route is None else torch.cat([route, features], 1))
            found.append(self.boxes(out, level, size))
            if level < 2:
                route = F.interpolate(route, scale_factor=2.0)
        return torch.cat([b for b, _ in found], 1), torch.cat([s for _, s in found], 1)


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.q, self.k, self.v, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.first, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.second = nn.LayerNorm(width)
        self.heads = heads

    def forward(self, y, mask):
        n, t, width = y.shape
        q, k, v = (part(y).view(n, t, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        z = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(n, t, width)
        y = self.first(y + self.mix(z))
        return self.second(y + self.narrow(F.gelu(self.wide(y))))


class Encoder(nn.Module):
    def __init__(self, folder):
        super().__init__()
        width = BERT["width"]
        self.words = nn.Embedding(BERT["vocabulary"], width)
        self.places = nn.Parameter(torch.zeros(1, BERT["length"], width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([Layer(width, BERT["heads"]) for _ in range(BERT["layers"])])

    def ordered(self):
        return [self.words.weight, self.places, *(p for m in (self.norm, self.layers) for p in m.parameters())]

    def forward(self, ids, mask):
        y = self.norm(self.words(ids) + self.places)
        for layer in self.layers:
            y = layer(y, mask)
        return y


class Recurrence(nn.Module):
    """A projection and Fluid's GRU over it, which resets the state before its product; torch's own resets behind it."""

    def __init__(self, i, hidden, back):
        super().__init__()
        self.project = nn.Linear(i, hidden * 3)
        self.weight, self.bias = nn.Parameter(torch.zeros(hidden, hidden * 3)), nn.Parameter(torch.zeros(1, hidden * 3))
        self.back = back

    def forward(self, x):
        x, hidden = self.project(x) + self.bias, self.weight.shape[0]
        gates, state = self.weight.view(-1)[: 2 * hidden * hidden].view(hidden, -1), x.new_zeros(x.shape[0], hidden)
        candidate = self.weight.view(-1)[2 * hidden * hidden :].view(hidden, hidden)
        found = []
        for step in reversed(range(x.shape[1])) if self.back else range(x.shape[1]):
            update, reset = torch.sigmoid(x[:, step, : 2 * hidden] + state @ gates).chunk(2, -1)
            new = torch.tanh(x[:, step, 2 * hidden :] + (reset * state) @ candidate)
            state = state + update * (new - state)
            found.append(state)
        return torch.stack(found[::-1] if self.back else found, 1)


class Tagger(nn.Module):
    """Sequences of one length; a CRF's best path."""

    def __init__(self, folder):
        super().__init__()
        hidden, labels = LAC["hidden"], LAC["labels"]
        self.words = nn.Embedding(LAC["vocabulary"], LAC["word"])
        sizes = [LAC["word"], *[2 * hidden] * (LAC["layers"] - 1)]
        self.layers = nn.ModuleList([nn.ModuleList([Recurrence(i, hidden, b) for b in (False, True)]) for i in sizes])
        self.scores = nn.Linear(2 * hidden, labels)
        self.moves = nn.Parameter(torch.zeros(labels + 2, labels))

    def ordered(self):
        layers = [p for m in self.layers for r in m for p in (*r.project.parameters(), r.weight, r.bias)]
        return [self.words.weight, *layers, *self.scores.parameters(), self.moves]

    def forward(self, words, offsets):
        y = self.words(words.view(offsets.shape[0] - 1, -1))
        for forth, back in self.layers:
            y = torch.cat([forth(y), back(y)], -1)
        scores = self.scores(y)
        best, came = self.moves[0] + scores[:, 0], []
        for step in range(1, scores.shape[1]):
            value, index = (best.unsqueeze(2) + self.moves[2:]).max(1)
            best = value + scores[:, step]
            came.append(index)
        label = (best + self.moves[1]).argmax(1)
        path = [label]
        for index in reversed(came):
            label = index.gather(1, label.unsqueeze(1)).squeeze(1)
            path.append(label)
        return torch.stack(path[::-1], 1).view(-1, 1)


MODULES = {
    "resnet50": resnet50, "mobilenet": mobilenet, "vgg16": vgg16, "ssd_mobilenet": Ssd, "yolov3": Yolo, "bert": Encoder,
    "lac": Tagger,
}  # fmt: skip


def ordered(module):
    """Parameters and running statistics in the order of modules."""
    for part in module.children():
        yield from ordered(part)
    if not list(module.children()):
        yield from module.parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d):
            yield from (module.running_mean, module.running_var)


def torch_module(name, folder):
    """The module of that name with the parameters of the model saved in `folder`."""
    module = MODULES[name](folder).eval()
    targets = list(module.ordered() if hasattr(module, "ordered") else ordered(module))
    values = list(models.parameters(folder)[2].values())
    if len(targets) != len(values):
        raise SystemExit(f"{name}: {len(targets)} parameters in torch, {len(values)} in the saved model")
    transposed = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}  # Fluid has [inputs, outputs]
    with torch.no_grad():
        for target, value in zip(targets, values):
            target.copy_(torch.from_numpy(value.T if id(target) in transposed else value))
    return module
