"""The vocabulary in Fluid's layers: millstream and PaddlePaddle 1.8.5."""


import numpy as np
from described import Sequences


class Layers:
    """`fluid.layers`, by the names that descriptions use."""

    last = 1  # axis of the width of a sequence's steps: they are rows

    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    # ---- images ------------------------------------------------------------------------------
    def image(self, x):
        return x

    def conv(self, x, filters, size, stride=1, padding=None, groups=1, dilation=1, bias=False, act=None):
        padding = (size - 1) // 2 * dilation if padding is None else padding
        return self.layers.conv2d(
            x, filters, size, stride, padding, dilation, groups, bias_attr=None if bias else False, act=act
        )

    def conv_transpose(self, x, filters, size, stride, padding):
        return self.layers.conv2d_transpose(
            x, filters, filter_size=size, stride=stride, padding=padding, bias_attr=False
        )

    def norm(self, x, act=None):
        return self.layers.batch_norm(x, act=act)

    def max_pool(self, x, size, stride, padding=0):
        return self.layers.pool2d(x, size, "max", stride, padding)

    def global_average(self, x):
        return self.layers.pool2d(x, pool_type="avg", global_pooling=True)

    def resize(self, x, height, width):
        """Bilinear, corners on corners."""
        return self.layers.resize_bilinear(x, out_shape=[height, width])

    def double(self, x):
        return self.layers.resize_nearest(x, scale=2.0)

    def channels(self, xs):
        return self.layers.concat(xs, axis=1)

    def scaled_channels(self, x, weights):
        """x * weights [batch, channels]."""
        return self.layers.elementwise_mul(x, weights, axis=0)

    def pixels(self, x):
        """[batch, channels, h, w] -> [batch * h * w, channels]."""
        return self.layers.reshape(self.layers.transpose(x, [0, 2, 3, 1]), [-1, x.shape[1]])

    def flat(self, x):
        return self.layers.flatten(x, axis=1)

    # ---- anything ----------------------------------------------------------------------------
    def fc(self, x, size, act=None, dims=1, bias=True):
        return self.layers.fc(x, size, num_flatten_dims=dims, act=act, bias_attr=None if bias else False)

    def embed(self, ids, size, width, name=None, sparse=False):
        """ids [..., 1] -> [..., width]."""
        attr = self.fluid.ParamAttr(name=name)
        return self.layers.embedding(ids, [size, width], is_sparse=sparse, param_attr=attr)

    def layer_norm(self, x):
        return self.layers.layer_norm(x, begin_norm_axis=len(x.shape) - 1)

    def act(self, x, name, slope=0.1):
        if name == "leaky_relu":
            return self.layers.leaky_relu(x, alpha=slope)
        return getattr(self.layers, name)(x)

    def add(self, x, y, act=None):
        return self.layers.elementwise_add(x, y, act=act)

    def scale(self, x, factor):
        return self.layers.scale(x, scale=factor)

    def softmax(self, x):
        return self.layers.softmax(x)

    def reshape(self, x, shape):
        return self.layers.reshape(x, shape)

    def transpose(self, x, order):
        return self.layers.transpose(x, order)

    def concat(self, xs, axis):
        return self.layers.concat(xs, axis=axis)

    def matmul(self, x, y, transpose_y=False, alpha=1.0):
        return self.layers.matmul(x, y, transpose_y=transpose_y, alpha=alpha)

    # ---- sequences ---------------------------------------------------------------------------
    def rows_fc(self, xs, size, act=None):
        """Sum of linear maps of each of `xs` [.., width], with one bias."""
        return self.layers.fc(xs, size, act=act)

    def lstm(self, gates, size, reverse=False):
        """Hidden states over gates [.., 4 * size]; candidate, input, forget, output; no peepholes."""
        return self.layers.dynamic_lstm(gates, 4 * size, use_peepholes=False, is_reverse=reverse)[0]

    def gru(self, gates, size, reverse=False):
        """Hidden states over gates [.., 3 * size]: update, reset, candidate."""
        return self.layers.dynamic_gru(gates, size, is_reverse=reverse)

    def longest(self, x):
        """Maximum over each sequence's steps."""
        return self.layers.sequence_pool(x, "max")

    def crf(self, emission, label):
        """Mean negative log likelihood of the label sequences."""
        return self.layers.mean(self.layers.linear_chain_crf(emission, label))

    # ---- loops -------------------------------------------------------------------------------
    def loop(self, count, body, state):
        """The list `state` after `count` turns of `state = body(turn, state)`; `turn` is [1] of int64."""
        layers = self.layers
        turn = layers.fill_constant([1], "int64", 0)
        limit = layers.fill_constant([1], "int64", count)
        go = layers.less_than(turn, limit)
        loop = layers.While(go)
        with loop.block():
            for held, new in zip(state, body(turn, state)):
                layers.assign(new, held)
            layers.increment(turn, 1)
            layers.less_than(turn, limit, cond=go)
        return state

    def rows(self, x, index):
        """x[index]; index [n] of int64."""
        return self.layers.gather(x, index)

    def zeros(self, shape):
        return self.layers.fill_constant(shape, "float32", 0.0)

    def repeated(self, turn, rows):
        """[rows, 1] of the number of the turn."""
        return self.layers.expand(self.layers.reshape(turn, [1, 1]), [rows, 1])

    def best(self, logits, scores, sentences, beam):
        """(words [rows, 1], scores [rows, 1], rows they continue [rows]) of the next step of a beam search.

        logits [rows, vocabulary], scores [rows, 1]; each sentence has `beam` rows.
        """
        layers, count = self.layers, logits.shape[1]
        total = layers.elementwise_add(layers.log(layers.softmax(logits)), scores)
        scores, at = layers.topk(layers.reshape(total, [sentences, beam * count]), beam)
        whole = layers.fill_constant([1], "int64", count)
        first = layers.assign((np.arange(sentences) * beam).reshape(-1, 1).astype("int32"))
        parents = layers.elementwise_add(layers.elementwise_floordiv(at, whole), layers.cast(first, "int64"))
        words = layers.elementwise_mod(at, whole)
        return [layers.reshape(v, s) for v, s in ((words, [-1, 1]), (scores, [-1, 1]), (parents, [-1]))]

    def total(self, x):
        return self.layers.reduce_sum(x)

    # ---- ends --------------------------------------------------------------------------------
    def classify(self, x, classes, label):
        """Mean cross entropy of a softmax layer; label [batch, 1]."""
        prediction = self.layers.fc(x, classes, act="softmax")
        return self.layers.mean(self.layers.cross_entropy(prediction, label))

    def cross_entropy(self, logits, label):
        """Mean over rows; logits [rows, classes], label [rows, 1]."""
        return self.layers.mean(self.layers.softmax_with_cross_entropy(logits, label))

    def square_error(self, x, y):
        return self.layers.mean(self.layers.square_error_cost(x, y))

    def sigmoid_cross_entropy(self, logits, label):
        return self.layers.mean(self.layers.sigmoid_cross_entropy_with_logits(logits, label))


def minimize(fluid, optimizer, loss):
    """Append backward and updates."""
    extra = {}
    if optimizer.decay:
        extra["regularization"] = fluid.regularizer.L2Decay(optimizer.decay)
    makers = {
        "sgd": lambda: fluid.optimizer.SGD(optimizer.rate, **extra),
        "momentum": lambda: fluid.optimizer.Momentum(optimizer.rate, 0.9, **extra),
        "adam": lambda: fluid.optimizer.Adam(optimizer.rate, **extra),
    }
    makers[optimizer.kind]().minimize(loss)


def variable(fluid, name, array):
    level = 0
    if isinstance(array, Sequences):
        array, level = array.values, 1
    return fluid.layers.data(name, list(array.shape[1:]), dtype=str(array.dtype), lod_level=level)


def value(fluid, array):
    """What is fed."""
    if isinstance(array, Sequences):
        return fluid.create_lod_tensor(array.values, [array.lengths], fluid.CPUPlace())
    return array


def build(fluid, loss, feed, optimizer):
    """The loss Variable of the description in the default Programs."""
    data = {name: variable(fluid, name, array) for name, array in feed.items()}
    result = loss(Layers(fluid), data)
    if optimizer is not None:
        minimize(fluid, optimizer, result)
    return result
