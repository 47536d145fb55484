"""Floating-point operations of the kernels that do many for each number they read or write.

A declaration's ``flops=`` takes (ins, outs, attrs): slots with the shapes of their values, and the operator's attributes.
A multiplication and an addition are two. Everything else counts one operation for each element of its outputs; gradients
of what is declared here cost once more the forward for each of two operands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

Shapes = Mapping[str, list[tuple[int, ...]]]
Flops = Callable[[Shapes, Shapes, Mapping[str, Any]], int]


def product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """mul: X and Y flattened to matrices."""
    columns = attrs.get("y_num_col_dims", 1)
    return 2 * prod(outs["Out"][0]) * prod(ins["Y"][0][:columns])


def batched_product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """matmul, bmm: the dimension of X that is summed over."""
    x = ins["X"][0]
    inner = x[-2] if attrs.get("transpose_X", False) and len(x) > 1 else x[-1]
    return 2 * prod(outs["Out"][0]) * inner


def dense_layer(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fc: W is [in, out]."""
    return 2 * prod(outs["Out"][0]) * ins["W"][0][0]


def dense_layer_step(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """The gradients of W and, where it is wanted, of X."""
    return 2 * prod(ins["Out@GRAD"][0]) * ins["W"][0][0] * (2 if outs.get("X@GRAD") else 1)


def classifier(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """The product and the gradients of W and, where it is wanted, of X."""
    return 2 * prod(ins["Label"][0]) * prod(ins["W"][0]) * (3 if outs.get("X@GRAD") else 2)


def convolution(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """Each output element sums over one filter [in / groups, *kernel]."""
    return 2 * prod(outs["Output"][0]) * prod(ins["Filter"][0][1:])


def transposed_convolution(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """Each input element spreads over one filter [out / groups, *kernel]."""
    return 2 * prod(ins["Input"][0]) * prod(ins["Filter"][0][1:])


def recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """lstm, gru, their units: each step multiplies a state by Weight [states, gates]."""
    rows = ins["Input"][0][0]
    return 2 * rows * prod(ins["Weight"][0])


def projected_recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """lstmp: the projection [cells, states] comes on top."""
    return recurrence(ins, outs, attrs) + 2 * ins["Input"][0][0] * prod(ins["ProjWeight"][0])


def projected_input(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """projected_gru and its kin: X [rows, width] times WeightX, and the recurrence over WeightH."""
    return 2 * ins["X"][0][0] * (prod(ins["WeightX"][0]) + prod(ins["WeightH"][0]))


def _used(shapes: Shapes, slot: str) -> tuple[int, ...]:
    """The shape of a slot that may be missing; () then."""
    return shapes[slot][0] if shapes.get(slot) else ()


def stacked_recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """cudnn_lstm: each step of each sequence multiplies by all of W but its biases (8 vectors a layer and direction)."""
    steps, batch = ins["Input"][0][:2]
    directions = 2 if attrs.get("is_bidirec", False) else 1
    biases = 8 * attrs.get("hidden_size", 100) * attrs.get("num_layers", 1) * directions
    return 2 * steps * batch * (prod(ins["W"][0]) - biases)


def lstm_cell(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """lstm_unit: three sigmoids, two tanh, a bias, three products and a sum for each element of C."""
    return 10 * prod(ins["C_prev"][0])


def projected_both_ways(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """projected_bigru: projected_gru for each direction."""
    weights = sum(prod(_used(ins, s)) for s in ("WeightX", "WeightX2", "WeightH", "WeightH2"))
    return 2 * ins["X"][0][0] * weights


def embedded_recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """embedded_bigru, fused_embedding_fc_lstm: the projections were looked up; the recurrence is left."""
    weights = sum(prod(shape) for s in ("WeightH", "WeightH2") for shape in ins.get(s, ()))
    return 2 * ins["Ids"][0][0] * weights


def tagged(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """bigru_tagger: rows times all weights but the table's, and a sum and a comparison for each pair of tags."""
    weights = sum(prod(shape) for s in ("WeightH", "WeightX", "W") for shape in ins.get(s, ()))
    return 2 * ins["Ids"][0][0] * (weights + ins["W"][0][1] ** 2)


def attended_recurrence(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """attention_lstm: rows times the weights of attention and LSTM; a step weighs its sequence's rows once more.

    How long sequences are is not known here: they count as equally long.
    """
    rows, width = ins["X"][0]
    steps = rows / max(1, ins["C0"][0][0])
    return int(2 * rows * (prod(ins["AttentionWeight"][0]) + prod(ins["LSTMWeight"][0]) + steps * width))


def attention(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fused_attention: Q K^T and its product with V; heads share the widths."""
    q, v = ins["Q"][0], ins["V"][0]
    return 2 * prod(q) * v[-2] + 2 * prod(q[:-1]) * v[-2] * v[-1]


def repeated_layers(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fusion_repeated_fc_relu: rows of X times all W."""
    return 2 * prod(ins["X"][0][:-1]) * sum(prod(w) for w in ins["W"])


def squared_products(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fusion_squared_mat_sub: X Y, and the product of their squares."""
    return 4 * prod(outs["Out"][0]) * ins["X"][0][-1]


def context_product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """sequence_conv and its fusion: Filter [context * width, out] for each row."""
    return 2 * ins["X"][0][0] * prod(ins["Filter"][0])


def expanded_layer(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """fusion_seqexpand_concat_fc: FCWeight times the rows of the first X, and of each other X once a sequence."""
    first, *rest = ins["X"]
    width = ins["FCWeight"][0][1]
    return 2 * width * (prod(first) + sum(prod(x) for x in rest))


def added_product(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """addmm: X Y."""
    return 2 * prod(outs["Out"][0]) * ins["X"][0][-1]


def bilinear(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """bilinear_tensor_product: Weight [size, M, N] for each row."""
    return 2 * ins["X"][0][0] * prod(ins["Weight"][0])


def row_program(ins: Shapes, outs: Shapes, attrs: Mapping[str, Any]) -> int:
    """row_loop: what the steps of its program compute for one row (products with matrices, else an operation an
    element), times the rows of all steps. Values over the rows of other sequences (attention) count once a row."""
    shape = _used(ins, "Shape")
    rows = shape[0] * shape[1] if shape else ins["Steps"][0][0]
    program = json.loads(attrs["code"])
    values, each = [None, *program["values"]], 0  # numbered from 1; 0 is no value
    for _, inputs, output, _ in program["steps"]:
        matrices = [values[i] for i in inputs if i and values[i][0] == "matrix"]
        width = values[output][2]
        each += sum(2 * width * matrix[1][2] for matrix in matrices) if matrices else width
    return rows * each
