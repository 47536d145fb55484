"""embedded_bigru + projected_bigru for each further layer + fc + crf_decoding -> bigru_tagger, over stored weights.

A sentence of a few words takes a quarter less: three operators' Python, and what it throws out of the processor's caches,
cost as much as a layer.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch

from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import not_removable, replace
from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.recurrent import pack_bigru

_SETTINGS = ("activation", "gate_activation", "origin_mode")


@cache
def _kernels() -> ModuleType:
    """Imported at first use: it loads numba."""
    from millstream.kernels import bigru_tagger

    return bigru_tagger


@program_pass("fuse_bigru_tagger")
def fuse_bigru_tagger(work: Work) -> int:
    """Counts places."""
    changes = 0
    for block in work.blocks:
        uses = work.uses(block)
        for at, op in enumerate(block.ops):
            chain = _chain(uses, at) if op.type == "crf_decoding" else None
            if chain is None:
                continue
            ops = [block.ops[p] for p in (*chain, at)]
            why = _why_not(work, ops) or not_removable(uses, chain, at)
            if why is not None:
                work.refuse("fuse_bigru_tagger", op, why)
                continue
            replace(work, block, chain, at, _made(work, block, ops))
            changes += 1
            uses = work.uses(block)
            break  # positions have changed
    return changes


def _chain(uses: Uses, at: int) -> list[int] | None:
    """The positions of embedded_bigru, projected_bigru, …, fc that lead to the crf_decoding at `at`."""
    found = [at]
    for slot, kinds in (("Emission", ("fc",)), ("Input", _LAYERS)):
        made = uses.producer(uses.ops[found[0]].input(slot)[0], found[0])
        if made is None or uses.ops[made].type not in kinds:
            return None
        found.insert(0, made)
    while uses.ops[found[0]].type == "projected_bigru":
        made = uses.producer(uses.ops[found[0]].input("X")[0], found[0])
        if made is None or uses.ops[made].type not in _LAYERS:
            return None
        found.insert(0, made)
    return found[:-1]


_LAYERS = ("embedded_bigru", "projected_bigru")


def _why_not(work: Work, ops: list[Operator]) -> str | None:
    *layers, scores, decoding = ops
    if decoding.input("Label") or decoding.input("Length"):
        return "tags are compared with labels, or sequences are padded"
    if scores.attr("in_num_col_dims") != 1 or scores.attr("activation_type") or scores.attr("padding_weights"):
        return "the layer before the CRF is not a plain product"
    if any(layer.attr(a) != layers[0].attr(a) for layer in layers for a in _SETTINGS):
        return "the layers have different activations"
    if len({bool(layer.input("DigitsH")) for layer in layers}) > 1:
        return "the weights of some layers are integers, of others floats"
    if any(bool(layer.input("DigitsX")) != bool(layers[0].input("DigitsH")) for layer in layers[1:]):
        return "the projections of some layers are by integers, of others by floats"
    if any(not layer.input("Bias" + k) for layer in layers for k in ("", "2")):
        return "a layer has no bias"
    if any(not layer.input("BiasX" + k) for layer in layers[1:] for k in ("", "2")):
        return "a projection has no bias"
    return _values_differ(work, layers, scores, decoding)


def _values_differ(work: Work, layers: list[Operator], scores: Operator, decoding: Operator) -> str | None:
    read = [*scores.input("W"), *scores.input("Bias"), *decoding.input("Transition")]
    slots = [(layer, s) for layer in layers for s in layer.input_names if "Weight" in s or "Bias" in s]
    read += [name for layer, slot in slots for name in layer.input(slot)]
    values = {name: work.value(name) for name in read}
    if any(v is None or v.dtype is not torch.float32 or not v.is_cpu for v in values.values()):
        return "the weights are not known, or not float32"
    first = values[layers[0].input("WeightH")[0]]
    assert first is not None  # above
    d = first.shape[0]
    widths = {values[layer.input("WeightH" + k)[0]].shape[0] for layer in layers for k in ("", "2")}  # type: ignore[union-attr]
    if widths != {d} or d % 16:
        return "the layers differ in width, or are no multiple of 16 wide"
    return None


# ---- what is made ------------------------------------------------------------------------------------
def _made(work: Work, block: Block, ops: list[Operator]) -> Operator:
    *layers, scores, decoding = ops
    first, later = layers[0], layers[1:]
    of_digits = bool(first.input("DigitsH")) and pack_bigru.fits_scores(work, scores.input("W")[0])
    inputs = {"Ids": first.input("Ids"), "Table": first.input("Table")}
    for slot, members in (
        ("WeightH", layers), ("Bias", layers), ("DigitsH", layers), ("WeightX", later), ("BiasX", later), ("DigitsX", later)
    ):  # fmt: skip
        inputs[slot] = [name for layer in members for k in ("", "2") for name in layer.input(slot + k)]
    inputs |= {"W": scores.input("W"), "BiasW": scores.input("Bias"), "Transition": decoding.input("Transition")}
    inputs["Packed"] = [work.store(first.input("WeightH")[0], _packed(work, inputs, len(layers), of_digits))]
    attrs = {a: first.attr(a) for a in _SETTINGS}
    attrs |= {"is_reverse": [int(layer.attr("is_reverse")) for layer in layers], "digits_of_scores": of_digits}
    return Operator(block, "bigru_tagger", inputs, {"ViterbiPath": decoding.output("ViterbiPath")}, attrs, decoding.site)


def _packed(work: Work, inputs: dict[str, list[str]], layers: int, of_digits: bool) -> torch.Tensor:
    """The block of kernels/bigru_tagger.py."""

    def values(slot: str) -> list[np.ndarray]:
        found = [work.value(name) for name in inputs[slot]]
        return [v.detach().contiguous().numpy() for v in found if v is not None]

    weights, moves = values("W")[0], values("Transition")[0]
    tags, digits = weights.shape[1], values("DigitsH")
    places, size = _kernels().places_of(layers, weights.shape[0] // 2, tags, bool(digits), of_digits)
    bias, states, rows, bias_rows, rows_digits = (values(s) for s in ("Bias", "WeightH", "WeightX", "BiasX", "DigitsX"))
    found: list[np.ndarray | None] = []
    for k in range(2 * layers):
        if k < 2:
            projected = [None, None, None if digits else states[k], bias[k], None]
        else:
            both = np.float32(0) + bias_rows[k - 2].reshape(-1) + bias[k].reshape(-1)
            own = rows_digits[k - 2] if digits else None
            projected = [None if digits else rows[k - 2], both, None if digits else states[k], None, own]
        found += [*projected, digits[k] if digits else None]
    wide = _kernels().padded(tags)
    across = ((0, 0), (0, wide - tags))
    weights, moves = np.pad(weights, across), np.pad(moves, across)
    line = np.pad(values("BiasW")[0].reshape(-1), (0, wide - tags)) if inputs["BiasW"] else np.zeros(wide, "float32")
    found += [pack_bigru.digits_of(weights) if of_digits else weights, line, moves]
    block = np.zeros(size, np.int8)
    for part, place in zip(found, places):
        if part is not None:
            raw = np.ascontiguousarray(part).reshape(-1).view(np.int8)
            block[place : place + raw.size] = raw
    return torch.from_numpy(block)
