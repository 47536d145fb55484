"""The vocabulary in torch modules, made when the description first runs and called in order after that."""

import numpy as np
import torch
from described import LENGTHS
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu6": F.relu6}


def take(parameters, count):
    """The next `count` arrays of an iterator over Fluid's parameters, as tensors."""
    return [torch.from_numpy(np.array(next(parameters))) for _ in range(count)]


def set_parameters(module, values):
    """Copy `values` {attribute: tensor} into `module`; shapes must agree."""
    with torch.no_grad():
        for name, value in values.items():
            held = getattr(module, name)
            if held.shape != value.shape:
                raise ValueError(f"{module}.{name} is {held.shape}, the parameter {value.shape}")
            held.copy_(value)
    return module


def linear(parameters, bias=True):
    """nn.Linear from Fluid's [in, out] weight (and bias)."""
    values = take(parameters, 1 + bias)
    module = nn.Linear(*values[0].shape, bias=bias)
    named = {"weight": values[0].t()}
    if bias:
        named["bias"] = values[1]
    return set_parameters(module, named)


class Layers:
    """Calls the modules of `parts` in turn; with `parameters` it makes them first."""

    last = -1  # axis of the width of a sequence's steps

    def __init__(self, parts, feed, parameters=None):
        self.parts, self.parameters, self.at, self.seen = parts, parameters, 0, {}
        self.lengths = feed.get(LENGTHS)

    def part(self, make):
        if self.parameters is not None:
            self.parts.append(make().eval())
        module = self.parts[self.at]
        self.at += 1
        return module

    # ---- images ------------------------------------------------------------------------------
    def image(self, x):
        return x

    def conv(self, x, filters, size, stride=1, padding=None, groups=1, dilation=1, bias=False, act=None):
        padding = (size - 1) // 2 * dilation if padding is None else padding

        def make():
            module = nn.Conv2d(x.shape[1], filters, size, stride, padding, dilation, groups, bias=bias)
            return set_parameters(module, dict(zip(("weight", "bias"), take(self.parameters, 1 + bias))))

        x = self.part(make)(x)
        return x if act is None else ACTIVATIONS[act](x)

    def conv_transpose(self, x, filters, size, stride, padding):
        def make():
            module = nn.ConvTranspose2d(x.shape[1], filters, size, stride, padding, bias=False)
            return set_parameters(module, {"weight": take(self.parameters, 1)[0]})

        return self.part(make)(x)

    def norm(self, x, act=None):
        def make():
            names = ("weight", "bias", "running_mean", "running_var")
            return set_parameters(nn.BatchNorm2d(x.shape[1]), dict(zip(names, take(self.parameters, 4))))

        x = self.part(make)(x)
        return x if act is None else ACTIVATIONS[act](x)

    def max_pool(self, x, size, stride, padding=0):
        return F.max_pool2d(x, size, stride, padding)

    def global_average(self, x):
        return F.adaptive_avg_pool2d(x, 1)

    def resize(self, x, height, width):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)

    def double(self, x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def channels(self, xs):
        return torch.cat(xs, 1)

    def scaled_channels(self, x, weights):
        return x * weights[:, :, None, None]

    def pixels(self, x):
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])

    def flat(self, x):
        return x.flatten(1)

    # ---- anything ----------------------------------------------------------------------------
    def fc(self, x, size, act=None, dims=1, bias=True):
        if dims == 1 and x.dim() > 2:
            x = x.flatten(1)
        x = self.part(lambda: linear(self.parameters, bias))(x)
        return x if act is None else ACTIVATIONS[act](x)

    def embed(self, ids, size, width, name=None, sparse=False):
        def make():
            return set_parameters(nn.Embedding(size, width, sparse=sparse), {"weight": take(self.parameters, 1)[0]})

        if name in self.seen:
            module = self.seen[name]
        else:
            module = self.part(make)
            if name is not None:
                self.seen[name] = module
        return module(ids.squeeze(-1))

    def layer_norm(self, x):
        def make():
            return set_parameters(
                nn.LayerNorm(x.shape[-1]), dict(zip(("weight", "bias"), take(self.parameters, 2)))
            )

        return self.part(make)(x)

    def act(self, x, name, slope=0.1):
        return F.leaky_relu(x, slope) if name == "leaky_relu" else ACTIVATIONS[name](x)

    def add(self, x, y, act=None):
        x = x + y
        return x if act is None else ACTIVATIONS[act](x)

    def scale(self, x, factor):
        return x * factor

    def softmax(self, x):
        return F.softmax(x, -1)

    def reshape(self, x, shape):
        return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(shape)])

    def transpose(self, x, order):
        return x.permute(order)

    def concat(self, xs, axis):
        return torch.cat(xs, axis)

    def matmul(self, x, y, transpose_y=False, alpha=1.0):
        x = torch.matmul(x, y.transpose(-1, -2) if transpose_y else y)
        return x if alpha == 1.0 else x * alpha

    # ---- sequences: padded, [batch, longest, width] ------------------------------------------
    def mask(self, x):
        return (torch.arange(x.shape[1])[None, :] < self.lengths[:, None])[..., None]

    def rows_fc(self, xs, size, act=None):
        def make():
            weights = take(self.parameters, len(xs))
            module = nn.Linear(sum(w.shape[0] for w in weights), size)
            return set_parameters(module, {"weight": torch.cat(weights).t(), "bias": take(self.parameters, 1)[0]})

        x = self.part(make)(torch.cat(xs, -1) if len(xs) > 1 else xs[0])
        return x if act is None else ACTIVATIONS[act](x)

    def recurrent(self, gates, size, step, states, reverse):
        """Hidden states of `step(gates, states) -> states`; a sequence keeps its state where it has no word."""
        mask = self.mask(gates)
        found = []
        hold = [gates.new_zeros(gates.shape[0], size) for _ in range(states)]
        times = range(gates.shape[1])
        for t in reversed(times) if reverse else times:
            new = step(gates[:, t], hold)
            hold = [torch.where(mask[:, t], n, h) for n, h in zip(new, hold)]
            found.append(hold[0])
        return torch.stack(found[::-1] if reverse else found, 1)

    def weights(self, count):
        def make():
            return nn.ParameterList([nn.Parameter(p) for p in take(self.parameters, count)])

        return self.part(make)

    def lstm(self, gates, size, reverse=False):
        weight, bias = self.weights(2)

        def step(gates, states):
            hidden, cell = states
            c, i, f, o = torch.addmm(gates, hidden, weight).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(c)
            return torch.sigmoid(o) * torch.tanh(cell), cell

        return self.recurrent(gates + bias, size, step, 2, reverse)

    def gru(self, gates, size, reverse=False):
        weight, bias = self.weights(2)
        flat = weight.reshape(-1)
        both, candidate = flat[: 2 * size * size].view(size, 2 * size), flat[2 * size * size :].view(size, size)

        def step(gates, states):
            hidden = states[0]
            u, r = torch.sigmoid(torch.addmm(gates[:, : 2 * size], hidden, both)).chunk(2, 1)
            c = torch.tanh(torch.addmm(gates[:, 2 * size :], r * hidden, candidate))
            return (torch.lerp(hidden, c, u),)

        return self.recurrent(gates + bias, size, step, 1, reverse)

    def longest(self, x):
        return x.masked_fill(~self.mask(x), -torch.inf).amax(1)

    def crf(self, emission, label):
        (weights,) = self.weights(1)
        start, end, move = weights[0], weights[1], weights[2:]
        batch, label = torch.arange(label.shape[0]), label[..., 0]
        mask = self.mask(emission)
        alpha = emission[:, 0] + start
        score = start[label[:, 0]] + emission[batch, 0, label[:, 0]]
        for t in range(1, emission.shape[1]):
            new = torch.logsumexp(alpha[:, :, None] + move, 1) + emission[:, t]
            alpha = torch.where(mask[:, t], new, alpha)
            gain = move[label[:, t - 1], label[:, t]] + emission[batch, t, label[:, t]]
            score = score + torch.where(mask[:, t, 0], gain, 0.0)
        score = score + end[label[batch, self.lengths - 1]]
        return (torch.logsumexp(alpha + end, 1) - score).mean()

    # ---- loops -------------------------------------------------------------------------------
    def loop(self, count, body, state):
        parameters, start = self.parameters, self.at
        for turn in range(count):
            self.at = start  # every turn calls the same modules
            state = body(turn, state)
            self.parameters = None
        self.parameters = parameters
        return state

    def rows(self, x, index):
        return x.index_select(0, index)

    def zeros(self, shape):
        return torch.zeros(shape)

    def repeated(self, turn, rows):
        return torch.full((rows, 1), turn)

    def best(self, logits, scores, sentences, beam):
        count = logits.shape[1]
        scores, at = (F.log_softmax(logits, 1) + scores).view(sentences, -1).topk(beam, 1)
        parents = at // count + torch.arange(sentences)[:, None] * beam
        return [(at % count).view(-1, 1), scores.view(-1, 1), parents.view(-1)]

    def total(self, x):
        return x.sum()

    # ---- ends --------------------------------------------------------------------------------
    def classify(self, x, classes, label):
        return F.cross_entropy(self.fc(x, classes), label[:, 0])

    def cross_entropy(self, logits, label):
        return F.cross_entropy(logits, label[:, 0])

    def square_error(self, x, y):
        return F.mse_loss(x, y)

    def sigmoid_cross_entropy(self, logits, label):
        return F.binary_cross_entropy_with_logits(logits, label)


class Network(nn.Module):
    """A description as a module; `forward` takes the feed and gives the loss."""

    def __init__(self, loss, feed, parameters):
        super().__init__()
        self.loss, self.parts = loss, nn.ModuleList()
        values = iter(parameters.values())
        with torch.no_grad():
            loss(Layers(self.parts, feed, values), feed)
        left = list(values)
        if left:
            raise ValueError(f"{len(left)} parameters were not used")
        self.train()  # making them took place in evaluation mode, so that running statistics stand where they were

    def forward(self, feed):
        return self.loss(Layers(self.parts, feed), feed)


def make_optimizer(optimizer, parameters):
    if optimizer.kind == "adam":
        return torch.optim.Adam(parameters, optimizer.rate, weight_decay=optimizer.decay)
    momentum = 0.9 if optimizer.kind == "momentum" else 0.0
    return torch.optim.SGD(parameters, optimizer.rate, momentum=momentum, weight_decay=optimizer.decay)


def tensors(feed):
    return {name: torch.from_numpy(array) for name, array in feed.items()}


def step(loss, feed, optimizer, parameters, compiled):
    """A function that does one step and gives its loss."""
    net = Network(loss, tensors(feed), parameters)
    run = torch.compile(net) if compiled else net
    if optimizer is None:

        def forward():
            with torch.no_grad():
                return run(tensors(feed)).item()

        return forward
    return training_step(lambda: run(tensors(feed)), make_optimizer(optimizer, net.parameters()))


def training_step(loss, optimizer):
    """loss: function without arguments."""

    def train():
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.item()

    return train
