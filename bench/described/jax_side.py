"""The vocabulary in JAX: pure functions, the whole training step under one `jit`. Images are [batch, h, w, channels]."""

import jax
import jax.numpy as jnp
import numpy as np
from described import LENGTHS
from jax import lax

ACTIVATIONS = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "relu6": jax.nn.relu6}
FORM = ("NHWC", "HWIO", "NHWC")


class Layers:
    """Takes parameters in order; `statistics` collects (position, value) of what batch norm keeps."""

    last = -1  # axis of the width of a sequence's steps

    def __init__(self, parameters, feed):
        self.lengths = feed.get(LENGTHS)
        self.parameters, self.at, self.shared, self.statistics = parameters, 0, {}, []

    def take(self):
        value = self.parameters[self.at]
        self.at += 1
        return value

    # ---- images ------------------------------------------------------------------------------
    def image(self, x):
        return x.transpose(0, 2, 3, 1)

    def conv(self, x, filters, size, stride=1, padding=None, groups=1, dilation=1, bias=False, act=None):
        padding = (size - 1) // 2 * dilation if padding is None else padding
        x = lax.conv_general_dilated(
            x,
            self.take().transpose(2, 3, 1, 0),
            (stride, stride),
            [(padding, padding)] * 2,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=FORM,
            feature_group_count=groups,
        )
        if bias:
            x = x + self.take()
        return x if act is None else ACTIVATIONS[act](x)

    def conv_transpose(self, x, filters, size, stride, padding):
        edge = size - 1 - padding
        weight = self.take()[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
        return lax.conv_general_dilated(
            x, weight, (1, 1), [(edge, edge)] * 2, lhs_dilation=(stride, stride), dimension_numbers=FORM
        )

    def norm(self, x, act=None):
        scale, bias, at = self.take(), self.take(), self.at
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        for new in (mean, variance):
            self.statistics.append((self.at, 0.9 * self.take() + 0.1 * lax.stop_gradient(new)))
        assert self.at == at + 2
        x = (x - mean) * (scale * lax.rsqrt(variance + 1e-5)) + bias
        return x if act is None else ACTIVATIONS[act](x)

    def max_pool(self, x, size, stride, padding=0):
        edge = (padding, padding)
        return lax.reduce_window(
            x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), [(0, 0), edge, edge, (0, 0)]
        )

    def global_average(self, x):
        return x.mean((1, 2), keepdims=True)

    def resize(self, x, height, width):
        def weights(old, new):
            at = jnp.linspace(0.0, old - 1.0, new)
            return jnp.maximum(0.0, 1.0 - jnp.abs(at[:, None] - jnp.arange(old)))

        rows, columns = weights(x.shape[1], height), weights(x.shape[2], width)
        return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)

    def double(self, x):
        return x.repeat(2, 1).repeat(2, 2)

    def channels(self, xs):
        return jnp.concatenate(xs, -1)

    def scaled_channels(self, x, weights):
        return x * weights[:, None, None, :]

    def pixels(self, x):
        return x.reshape(-1, x.shape[-1])

    def flat(self, x):
        return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)

    # ---- anything ----------------------------------------------------------------------------
    def fc(self, x, size, act=None, dims=1, bias=True):
        if dims == 1 and x.ndim > 2:
            x = self.flat(x) if x.ndim == 4 else x.reshape(x.shape[0], -1)
        x = x @ self.take()
        if bias:
            x = x + self.take()
        return x if act is None else ACTIVATIONS[act](x)

    def embed(self, ids, size, width, name=None, sparse=False):
        table = self.shared.get(name)
        if table is None:
            table = self.take()
            if name is not None:
                self.shared[name] = table
        return table[ids[..., 0]]

    def layer_norm(self, x):
        scale, bias = self.take(), self.take()
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * scale + bias

    def act(self, x, name, slope=0.1):
        return jax.nn.leaky_relu(x, slope) if name == "leaky_relu" else ACTIVATIONS[name](x)

    def add(self, x, y, act=None):
        x = x + y
        return x if act is None else ACTIVATIONS[act](x)

    def scale(self, x, factor):
        return x * factor

    def softmax(self, x):
        return jax.nn.softmax(x)

    def reshape(self, x, shape):
        return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(shape)])

    def transpose(self, x, order):
        return x.transpose(order)

    def concat(self, xs, axis):
        return jnp.concatenate(xs, axis)

    def matmul(self, x, y, transpose_y=False, alpha=1.0):
        x = x @ (y.swapaxes(-1, -2) if transpose_y else y)
        return x if alpha == 1.0 else x * alpha

    # ---- sequences: padded, [batch, longest, width] ------------------------------------------
    def mask(self, x):
        return (jnp.arange(x.shape[1])[None, :] < self.lengths[:, None])[..., None]

    def rows_fc(self, xs, size, act=None):
        weights = [self.take() for _ in xs]
        x = sum(x @ w for x, w in zip(xs, weights)) + self.take()
        return x if act is None else ACTIVATIONS[act](x)

    def recurrent(self, gates, size, step, states, reverse):
        def masked(hold, now):
            gates, mask = now
            hold = tuple(jnp.where(mask, n, h) for n, h in zip(step(gates, hold), hold))
            return hold, hold[0]

        zeros = (jnp.zeros((gates.shape[0], size)),) * states
        over = (gates.swapaxes(0, 1), self.mask(gates).swapaxes(0, 1))
        return lax.scan(masked, zeros, over, reverse=reverse)[1].swapaxes(0, 1)

    def lstm(self, gates, size, reverse=False):
        weight, bias = self.take(), self.take()

        def step(gates, states):
            hidden, cell = states
            c, i, f, o = jnp.split(gates + hidden @ weight, 4, 1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(c)
            return jax.nn.sigmoid(o) * jnp.tanh(cell), cell

        return self.recurrent(gates + bias, size, step, 2, reverse)

    def gru(self, gates, size, reverse=False):
        flat, bias = self.take().reshape(-1), self.take()
        both, candidate = flat[: 2 * size * size].reshape(size, -1), flat[2 * size * size :].reshape(size, size)

        def step(gates, states):
            hidden = states[0]
            u, r = jnp.split(jax.nn.sigmoid(gates[:, : 2 * size] + hidden @ both), 2, 1)
            c = jnp.tanh(gates[:, 2 * size :] + (r * hidden) @ candidate)
            return (hidden + u * (c - hidden),)

        return self.recurrent(gates + bias, size, step, 1, reverse)

    def longest(self, x):
        return jnp.where(self.mask(x), x, -jnp.inf).max(1)

    def crf(self, emission, label):
        weights = self.take()
        start, end, move = weights[0], weights[1], weights[2:]
        rows, label = jnp.arange(label.shape[0]), label[..., 0]
        mask = self.mask(emission)[..., 0]

        def forward(alpha, now):
            emitted, mask = now
            new = jax.nn.logsumexp(alpha[:, :, None] + move, 1) + emitted
            return jnp.where(mask[:, None], new, alpha), None

        alpha, _ = lax.scan(
            forward, emission[:, 0] + start, (emission[:, 1:].swapaxes(0, 1), mask[:, 1:].swapaxes(0, 1))
        )
        emitted = jnp.where(mask, jnp.take_along_axis(emission, label[..., None], 2)[..., 0], 0.0).sum(1)
        moved = jnp.where(mask[:, 1:], move[label[:, :-1], label[:, 1:]], 0.0).sum(1)
        score = start[label[:, 0]] + emitted + moved + end[label[rows, self.lengths - 1]]
        return (jax.nn.logsumexp(alpha + end, 1) - score).mean()

    # ---- ends --------------------------------------------------------------------------------
    def classify(self, x, classes, label):
        return self.cross_entropy(self.fc(x, classes), label)

    def cross_entropy(self, logits, label):
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), label, 1)
        return -picked.mean()

    def square_error(self, x, y):
        return ((x - y) ** 2).mean()

    def sigmoid_cross_entropy(self, logits, label):
        return (jnp.maximum(logits, 0) - logits * label + jnp.log1p(jnp.exp(-jnp.abs(logits)))).mean()


def initial_state(optimizer, parameters):
    zeros = [jnp.zeros_like(p) for p in parameters]
    if optimizer.kind == "adam":
        return zeros, [jnp.zeros_like(p) for p in parameters], jnp.zeros(())
    return (zeros,) if optimizer.kind == "momentum" else ()


def updated(optimizer, parameters, grads, state):
    """(parameters, state) after one update."""
    rate = optimizer.rate
    if optimizer.decay:
        grads = [g + optimizer.decay * p for g, p in zip(grads, parameters)]
    if optimizer.kind == "sgd":
        return [p - rate * g for p, g in zip(parameters, grads)], state
    if optimizer.kind == "momentum":
        velocity = [0.9 * v + g for v, g in zip(state[0], grads)]
        return [p - rate * v for p, v in zip(parameters, velocity)], (velocity,)
    time = state[2] + 1
    first = [0.9 * m + 0.1 * g for m, g in zip(state[0], grads)]
    second = [0.999 * v + 0.001 * g * g for v, g in zip(state[1], grads)]
    rate = rate * jnp.sqrt(1 - 0.999**time) / (1 - 0.9**time)
    moved = [p - rate * m / (jnp.sqrt(v) + 1e-8) for p, m, v in zip(parameters, first, second)]
    return moved, (first, second, time)


def training_step(loss, feed, optimizer, parameters):
    """loss: function of (list of parameters, feed) that gives (scalar, [(position, new value)])."""

    def train(parameters, state, feed):
        (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(parameters, feed)
        parameters, state = updated(optimizer, parameters, grads, state)
        for at, new in statistics:
            parameters[at] = new
        return value, parameters, state

    compiled = jax.jit(train, donate_argnums=(0, 1))
    held = [jnp.asarray(np.asarray(p)) for p in parameters]
    state = [held, initial_state(optimizer, held)]

    def run():
        value, state[0], state[1] = compiled(state[0], state[1], feed)
        return float(value)

    return run


def narrow(feed):
    """JAX has 32-bit integers unless told otherwise."""
    return {k: v.astype("int32") if v.dtype == np.int64 else v for k, v in feed.items()}


def step(loss, feed, optimizer, parameters):
    def described(parameters, feed):
        n = Layers(parameters, feed)
        value = loss(n, feed)
        if n.at != len(parameters):
            raise ValueError(f"{n.at} of {len(parameters)} parameters were used")
        return value, n.statistics

    values = list(parameters.values())
    feed = narrow(feed)
    if optimizer is None:
        forward = jax.jit(lambda p, f: described(p, f)[0])
        held = [jnp.asarray(np.asarray(p)) for p in values]
        return lambda: float(forward(held, feed))
    return training_step(described, feed, optimizer, values)
