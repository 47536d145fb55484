"""One description of a network, read by every peer.

A workload writes `loss(n, feed)` against the small vocabulary of `n` (images, convolutions, attention); each side below
is that vocabulary in the words of one framework: Fluid's layers, torch modules, JAX functions, Paddle 3 layers. So all
peers run the same network, and parameters come in one order, that of the description. Python 3.7 reads this file too.
"""

import numpy as np

LENGTHS = "@lengths"
# Adam adds epsilon before the bias correction in Fluid and JAX's form here, after it in torch and Paddle 3: where
# gradients are about 1e-7 (rare words) the first updates differ by more than rounding.
ADAM_TOLERANCE = dict.fromkeys(("torch", "torch-compiled", "paddle3"), (1e-4, 4e-2))


class Optimizer:
    """What a peer makes its own optimizer of.

    Args:
        kind: "sgd", "momentum" (0.9) or "adam" (0.9, 0.999).
        rate: learning rate.
        decay: factor of L2 decay, over all parameters.
    """

    def __init__(self, kind, rate, decay=0.0):
        self.kind, self.rate, self.decay = kind, rate, decay


class Sequences:
    """Feed of sequences of unequal lengths: `values` [sum of lengths, width], one after another.

    Fluid takes them as they are; the other frameworks get them `padded`, as their users would.
    """

    def __init__(self, values, lengths):
        self.values, self.lengths = values, [int(n) for n in lengths]

    def padded(self):
        """[batch, longest, width], zeros behind each sequence."""
        out = np.zeros((len(self.lengths), max(self.lengths)) + self.values.shape[1:], self.values.dtype)
        at = 0
        for row, count in enumerate(self.lengths):
            out[row, :count] = self.values[at : at + count]
            at += count
        return out


def dense(feed):
    """`feed` with sequences padded, and their common lengths as LENGTHS."""
    out, lengths = {}, None
    for name, value in feed.items():
        if isinstance(value, Sequences):
            lengths = value.lengths
            value = value.padded()
        out[name] = value
    if lengths is not None:
        out[LENGTHS] = np.array(lengths, "int64")
    return out


def peers(loss, feed, optimizer):
    """(fluid_model, torch_step, jax_step, paddle3_step) of a workload.

    Args:
        loss: function of (n, {name: peer's value}) that gives the peer's scalar.
        feed: {name: array or Sequences}, batch first.
        optimizer: an Optimizer; None where nothing is trained (then `loss` gives whatever scalar is compared).
    """

    def fluid_model(fluid):
        from described import fluid_side

        result = fluid_side.build(fluid, loss, feed, optimizer)
        return {name: fluid_side.value(fluid, array) for name, array in feed.items()}, result

    def torch_step(parameters, compiled=False):
        from described import torch_side

        return torch_side.step(loss, dense(feed), optimizer, parameters, compiled)

    def jax_step(parameters):
        from described import jax_side

        return jax_side.step(loss, dense(feed), optimizer, parameters)

    def paddle3_step(parameters):
        from described import paddle3_side

        return paddle3_side.step(loss, dense(feed), optimizer, parameters)

    return fluid_model, torch_step, jax_step, paddle3_step
