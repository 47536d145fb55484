"""The vocabulary in Paddle 3's layers (imperative mode), made when the description first runs and called in order after."""

import numpy as np
import paddle
from described import LENGTHS
from paddle import nn
from paddle.nn import functional as F

ACTIVATIONS = {"relu": F.relu, "sigmoid": F.sigmoid, "tanh": paddle.tanh, "relu6": F.relu6}


def set_parameters(layer, values):
    for name, value in values.items():
        getattr(layer, name).set_value(np.ascontiguousarray(value))
    return layer


def linear(parameters, bias=True):
    """nn.Linear from Fluid's weight (and bias)."""
    weight = next(parameters)
    layer = nn.Linear(*weight.shape, bias_attr=None if bias else False)
    values = {"weight": weight}
    if bias:
        values["bias"] = next(parameters)
    return set_parameters(layer, values)


class Layers:
    """Calls the layers of `parts` in turn; with `parameters` it makes them first."""

    last = -1  # axis of the width of a sequence's steps

    def __init__(self, parts, feed, parameters=None):
        self.parts, self.parameters, self.at, self.seen = parts, parameters, 0, {}
        self.lengths = feed.get(LENGTHS)

    def part(self, make):
        if self.parameters is not None:
            self.parts.append(make())
            self.parts[self.at].eval()
        layer = self.parts[self.at]
        self.at += 1
        return layer

    # ---- images ------------------------------------------------------------------------------
    def image(self, x):
        return x

    def conv(self, x, filters, size, stride=1, padding=None, groups=1, dilation=1, bias=False, act=None):
        padding = (size - 1) // 2 * dilation if padding is None else padding

        def make():
            layer = nn.Conv2D(
                x.shape[1], filters, size, stride, padding, dilation, groups, bias_attr=None if bias else False
            )
            return set_parameters(layer, dict(zip(("weight", "bias")[: 1 + bias], self.parameters)))

        x = self.part(make)(x)
        return x if act is None else ACTIVATIONS[act](x)

    def conv_transpose(self, x, filters, size, stride, padding):
        def make():
            layer = nn.Conv2DTranspose(x.shape[1], filters, size, stride, padding, bias_attr=False)
            return set_parameters(layer, {"weight": next(self.parameters)})

        return self.part(make)(x)

    def norm(self, x, act=None):
        def make():
            names = ("weight", "bias", "_mean", "_variance")
            return set_parameters(nn.BatchNorm2D(x.shape[1]), dict(zip(names, self.parameters)))

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
        return paddle.concat(xs, 1)

    def scaled_channels(self, x, weights):
        return x * weights.unsqueeze([2, 3])

    def pixels(self, x):
        return x.transpose([0, 2, 3, 1]).reshape([-1, x.shape[1]])

    def flat(self, x):
        return x.flatten(1)

    # ---- anything ----------------------------------------------------------------------------
    def fc(self, x, size, act=None, dims=1, bias=True):
        if dims == 1 and x.ndim > 2:
            x = x.flatten(1)
        x = self.part(lambda: linear(self.parameters, bias))(x)
        return x if act is None else ACTIVATIONS[act](x)

    def embed(self, ids, size, width, name=None, sparse=False):
        def make():
            return set_parameters(nn.Embedding(size, width, sparse=sparse), {"weight": next(self.parameters)})

        if name in self.seen:
            layer = self.seen[name]
        else:
            layer = self.part(make)
            if name is not None:
                self.seen[name] = layer
        return layer(ids.squeeze(-1))

    def layer_norm(self, x):
        def make():
            return set_parameters(nn.LayerNorm(x.shape[-1]), dict(zip(("weight", "bias"), self.parameters)))

        return self.part(make)(x)

    def act(self, x, name, slope=0.1):
        return F.leaky_relu(x, slope) if name == "leaky_relu" else ACTIVATIONS[name](x)

    def add(self, x, y, act=None):
        x = x + y
        return x if act is None else ACTIVATIONS[act](x)

    def scale(self, x, factor):
        return x * factor

    def softmax(self, x):
        return F.softmax(x)

    def reshape(self, x, shape):
        return x.reshape(shape)

    def transpose(self, x, order):
        return x.transpose(order)

    def concat(self, xs, axis):
        return paddle.concat(xs, axis)

    def matmul(self, x, y, transpose_y=False, alpha=1.0):
        x = paddle.matmul(x, y, transpose_y=transpose_y)
        return x if alpha == 1.0 else x * alpha

    # ---- sequences: padded, [batch, longest, width] ------------------------------------------
    def mask(self, x):
        return (paddle.arange(x.shape[1]).unsqueeze(0) < self.lengths.unsqueeze(1)).unsqueeze(-1)

    def rows_fc(self, xs, size, act=None):
        def make():
            weights = [next(self.parameters) for _ in xs]
            layer = nn.Linear(sum(len(w) for w in weights), size)
            return set_parameters(layer, {"weight": np.concatenate(weights), "bias": next(self.parameters)})

        x = self.part(make)(paddle.concat(xs, -1) if len(xs) > 1 else xs[0])
        return x if act is None else ACTIVATIONS[act](x)

    def recurrent(self, gates, size, step, states, reverse):
        """Hidden states of `step(gates, states) -> states`; a sequence keeps its state where it has no word."""
        masks, steps = self.mask(gates).unbind(1), gates.unbind(1)
        found = []
        hold = [paddle.zeros([gates.shape[0], size]) for _ in range(states)]
        times = range(gates.shape[1])
        for t in reversed(times) if reverse else times:
            new = step(steps[t], hold)
            hold = [paddle.where(masks[t], n, h) for n, h in zip(new, hold)]
            found.append(hold[0])
        return paddle.stack(found[::-1] if reverse else found, 1)

    def weights(self, count):
        def make():
            layers = []
            for _ in range(count):
                value = next(self.parameters)
                holder = nn.Layer()
                holder.weight = holder.create_parameter(list(value.shape))
                layers.append(set_parameters(holder, {"weight": value}))
            return nn.LayerList(layers)

        return [layer.weight for layer in self.part(make)]

    def lstm(self, gates, size, reverse=False):
        weight, bias = self.weights(2)

        def step(gates, states):
            hidden, cell = states
            c, i, f, o = paddle.addmm(gates, hidden, weight).chunk(4, 1)
            cell = F.sigmoid(f) * cell + F.sigmoid(i) * paddle.tanh(c)
            return F.sigmoid(o) * paddle.tanh(cell), cell

        return self.recurrent(gates + bias, size, step, 2, reverse)

    def longest(self, x):
        return paddle.where(self.mask(x), x, paddle.full([], -1e30)).max(1)

    # ---- loops -------------------------------------------------------------------------------
    def loop(self, count, body, state):
        parameters, start = self.parameters, self.at
        for turn in range(count):
            self.at = start  # every turn calls the same layers
            state = body(turn, state)
            self.parameters = None
        self.parameters = parameters
        return state

    def rows(self, x, index):
        return paddle.index_select(x, index)

    def zeros(self, shape):
        return paddle.zeros(shape)

    def repeated(self, turn, rows):
        return paddle.full([rows, 1], turn, "int64")

    def best(self, logits, scores, sentences, beam):
        count = logits.shape[1]
        scores, at = (F.log_softmax(logits, 1) + scores).reshape([sentences, -1]).topk(beam, 1)
        parents = at // count + paddle.arange(sentences).unsqueeze(1) * beam
        return [(at % count).reshape([-1, 1]), scores.reshape([-1, 1]), parents.reshape([-1])]

    def total(self, x):
        return x.sum()

    # ---- ends --------------------------------------------------------------------------------
    def classify(self, x, classes, label):
        return F.cross_entropy(self.fc(x, classes), label)

    def cross_entropy(self, logits, label):
        return F.cross_entropy(logits, label)

    def square_error(self, x, y):
        return F.mse_loss(x, y)

    def sigmoid_cross_entropy(self, logits, label):
        return F.binary_cross_entropy_with_logits(logits, label)


def make_optimizer(optimizer, parameters):
    decay = optimizer.decay or None
    if optimizer.kind == "adam":
        return paddle.optimizer.Adam(optimizer.rate, parameters=parameters, weight_decay=decay)
    if optimizer.kind == "momentum":
        return paddle.optimizer.Momentum(optimizer.rate, 0.9, parameters=parameters, weight_decay=decay)
    return paddle.optimizer.SGD(optimizer.rate, parameters=parameters, weight_decay=decay)


def tensors(feed):
    return {name: paddle.to_tensor(array) for name, array in feed.items()}


def training_step(loss, optimizer):
    """loss: function without arguments."""

    def train():
        value = loss()
        value.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(value)

    return train


def step(loss, feed, optimizer, parameters):
    """A function that does one step and gives its loss."""
    paddle.set_device("cpu")
    parts, values = nn.LayerList(), iter(parameters.values())

    def run(values=None):
        fed = tensors(feed)
        return loss(Layers(parts, fed, values), fed)

    with paddle.no_grad():
        run(values)
    left = list(values)
    if left:
        raise ValueError(f"{len(left)} parameters were not used")
    parts.train()  # making them took place in evaluation mode, so that running statistics stand where they were
    if optimizer is None:

        def forward():
            with paddle.no_grad():
                return float(run())

        return forward
    return training_step(
        run, make_optimizer(optimizer, parts.parameters())
    )
