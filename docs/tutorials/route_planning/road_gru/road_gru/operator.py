"""The operator ``road_gru``: a whole route of GRU steps with attention over road links, in one call."""

import numpy as np
import torch
from numba import njit

from millstream.ops import Spec, op


def _shape(x: Spec, links: Spec, state: Spec, query, weight_x, weight_link, weight_h, weight_c, bias) -> Spec:
    return x.like(shape=(x.shape[0], x.shape[1], state.shape[1]))


@op("road_gru", slots="X, Links, State, Query, WeightX, WeightLink, WeightH, WeightC, Bias -> Out", infer=_shape, grad=False)
def road_gru(x, links, state, query, weight_x, weight_link, weight_h, weight_c, bias):
    """For each step: a = softmax(links . (h Query)), g = [x, sum a link] W + bias, then a GRU step with h.

    X [steps, batch, F], Links [batch, K, D], State [batch, D]; WeightX [F, 3D], WeightLink [D, 3D] and Bias [3D] for the
    gates update, reset, candidate; WeightH [D, 2D]; WeightC [D, D]; Out [steps, batch, D].

    What does not depend on the state is computed before the loop: the inputs' share of the gates, and the links' share
    of scores and gates (the sum of links, weighted, times a matrix is the sum of their products, weighted).
    """
    steps, batch, _ = x.shape
    width = state.shape[1]
    out = torch.empty((steps, batch, width))
    gates = torch.addmm(bias, x.reshape(steps * batch, -1), weight_x).view(steps, batch, 3 * width)
    keys = torch.matmul(links, query.t())
    shares = torch.matmul(links, weight_link)
    _steps(*(t.contiguous().numpy() for t in (gates, keys, shares, state, weight_h, weight_c)), out.numpy())
    return out


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, error_model="numpy")
def _steps(gates, keys, shares, state, weight_h, weight_c, out):
    steps, batch, width = out.shape
    count = keys.shape[1]
    one = np.float32(1)
    weights, z, reset = np.empty(count, np.float32), np.empty(3 * width, np.float32), np.empty(width, np.float32)
    for b in range(batch):
        h = state[b]
        for t in range(steps):
            top = np.float32(-np.inf)
            for k in range(count):
                score = np.float32(0)
                for j in range(width):
                    score += keys[b, k, j] * h[j]
                weights[k] = score
                top = max(top, score)
            total = np.float32(0)
            for k in range(count):
                weights[k] = np.exp(weights[k] - top)
                total += weights[k]
            z[:] = gates[t, b]
            for k in range(count):
                share = weights[k] / total
                for j in range(3 * width):
                    z[j] += share * shares[b, k, j]
            for i in range(width):
                for j in range(2 * width):
                    z[j] += h[i] * weight_h[i, j]
            for j in range(2 * width):
                z[j] = one / (one + np.exp(-z[j]))
            for j in range(width):
                reset[j] = z[width + j] * h[j]
            for i in range(width):
                for j in range(width):
                    z[2 * width + j] += reset[i] * weight_c[i, j]
            new = out[t, b]
            for j in range(width):
                new[j] = z[j] * h[j] + (one - z[j]) * np.tanh(z[2 * width + j])
            h = new
