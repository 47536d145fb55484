"""cudnn_lstm: stacked, optionally bidirectional LSTM over padded, time-major input."""

from __future__ import annotations

import torch

from millstream.errors import ShapeError
from millstream.ops import _flops
from millstream.ops._opdef import op


def _spec(x, init_h, init_c, w, cache, *, hidden_size, is_bidirec, **_):
    width = hidden_size * (2 if is_bidirec else 1)
    return x.like(shape=(*x.shape[:-1], width)), init_h, init_c


def _unpack(w: torch.Tensor, input_size: int, hidden: int, layers: int, directions: int) -> list[torch.Tensor]:
    """Views of the flat weight in cuDNN's order: the matrices of every layer and direction, then all biases."""
    sizes = []
    for layer in range(layers):
        width = input_size if layer == 0 else hidden * directions
        sizes += [(4 * hidden, width), (4 * hidden, hidden)] * directions
    count = sum(a * b for a, b in sizes) + 8 * hidden * layers * directions
    if w.numel() != count:
        raise ShapeError(f"W must have {count} elements for {layers} layers of {hidden} units, received {w.numel()}")
    flat = w.reshape(-1)
    matrices, at = [], 0
    for a, b in sizes:
        matrices.append(flat[at : at + a * b].view(a, b))
        at += a * b
    biases = list(flat[at:].view(-1, 4 * hidden).unbind(0))
    params = []
    for k in range(0, len(matrices), 2):
        params += [matrices[k], matrices[k + 1], biases[k], biases[k + 1]]
    return params


@op("cudnn_lstm", slots="Input, InitH, InitC, W, Cache? -> Out, last_h, last_c", infer=_spec, nodiff="Cache",
    flops=_flops.stacked_recurrence)  # fmt: skip
def cudnn_lstm(
    x, init_h, init_c, w, cache, *,
    max_len: int = 20, dropout_prob: float = 0.0, is_bidirec: bool = False, input_size: int = 10,
    hidden_size: int = 100, num_layers: int = 1, is_test: bool = False, seed: int = -1,
):
    """LSTM (gates input, forget, candidate, output) over [T, batch, d]; dropout between layers while training.

    The layout of W follows cuDNN's description; 1.8.5 has no CPU kernel to compare with.
    """
    directions = 2 if is_bidirec else 1
    params = _unpack(w, x.shape[-1], hidden_size, num_layers, directions)
    state = [num_layers * directions, x.shape[1], hidden_size]
    for name, value in (("InitH", init_h), ("InitC", init_c)):  # torch.lstm itself reads past the end of a smaller one
        if list(value.shape) != state:
            raise ShapeError(f"{name} must have shape {state} for Input {list(x.shape)}, received {list(value.shape)}")
    train = not is_test and dropout_prob > 0
    return torch.lstm(
        x, [init_h.contiguous(), init_c.contiguous()], params, True, num_layers, dropout_prob, train, is_bidirec, False
    )
