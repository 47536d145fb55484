"""A DynamicRNN whose step is an LSTM over an attention-weighted mean of the whole sequence -> attention_lstm.

Step: scores of [rows, cell] by a layer with relu, one score a row [and a second layer of width 1 with relu], softmax
over the sequence, the mean of the rows by these weights, an LSTM over it (lstm_unit, or four gates written out).
"""

from __future__ import annotations

import torch

from millstream.ir.operator import Operator
from millstream.passes._pass import program_pass
from millstream.passes._pattern import Input, Node, Pattern, constant, either, maybe, node, value
from millstream.passes._rule import Match, body_match
from millstream.passes._work import Work
from millstream.passes.loops._find import Finder, Loop, Refused

NAME = "fuse_attention_lstm"
FRAME = frozenset({"read_from_array", "shrink_rnn_memory", "write_to_array", "increment", "less_than"})
"""Types of the operators in a DynamicRNN's Block that move values in and out, or count its steps."""


# ---- the step ------------------------------------------------------------------------------------------
def _two(kind: str, name: str, one: Input, other: Input) -> Pattern:
    """An operator over a list of two variables, either way round."""
    assert not isinstance(one, tuple) and not isinstance(other, tuple)
    return either(node(kind, name, X=(one, other)), node(kind, name, X=(other, one)))


def _product(mark: str, joint: dict[str, Node], first: Pattern, second: Pattern) -> Pattern:
    """[first, second] W, with the two side by side in one product or in a product each."""
    choices = [node("mul", f"product_{mark}", X=joined, Y=constant(f"{how}_{mark}")) for how, joined in joint.items()]
    apart = (
        node("mul", f"product_{mark}", X=first, Y=constant(f"first_{mark}")),
        node("mul", f"other_{mark}", X=second, Y=constant(f"second_{mark}")),
    )
    added = node("elementwise_add", f"added_{mark}", X=apart[0], Y=apart[1])
    return either(*choices, _two("sum", f"added_{mark}", *apart), added)


def _biased(mark: str, inner: Pattern) -> Pattern:
    return either(node("elementwise_add", f"bias_{mark}", X=inner, Y=constant(f"b_{mark}")), inner)


def _joints(mark: str, first: Pattern, second: Pattern) -> dict[str, Node]:
    return {
        "forth": node("concat", f"joint_{mark}", X=(first, second)),
        "back": node("concat", f"joint_{mark}", X=(second, first)),
    }


def _step() -> tuple[Node, Node]:
    rows, hidden, cell = value("rows"), value("hidden"), value("cell")
    spread = node("sequence_expand|sequence_expand_as", "spread", X=cell, Y=rows)
    scores = node("relu", "scores", X=_biased("score", _product("score", _joints("score", rows, spread), rows, spread)))
    scaled = node("mul", "scaled", X=scores, Y=constant("scalar"))
    again = node("relu", X=_biased("scalar", scaled))
    shares = node("sequence_softmax", X=either(again, scores))
    flat = maybe("reshape2|reshape", "flat", shares)
    mean = node("sequence_pool", "mean", X=node("elementwise_mul", "weighted", X=rows, Y=flat))

    joint = _joints("gates", mean, hidden)
    affine = {mark: _biased(mark, _product(mark, joint, mean, hidden)) for mark in ("f", "i", "o", "c", "gates")}
    whole = node("lstm_unit", "unit", out="H", X=affine["gates"], C_prev=cell)
    kept = node("elementwise_mul", "kept", X=node("sigmoid", X=affine["f"]), Y=cell)
    fresh = node("elementwise_mul", "fresh", X=node("sigmoid", X=affine["i"]), Y=node("tanh", X=affine["c"]))
    new = (node("sum", "new", X=(kept, fresh)), node("sum", "new", X=(fresh, kept)),
           node("elementwise_add", "new", X=kept, Y=fresh))  # fmt: skip
    opened = node("sigmoid", X=affine["o"])
    apart = node("elementwise_mul", "hidden", X=opened, Y=node("tanh", X=either(*new)))
    return whole, apart


_WHOLE, _APART = _step()


# ---- the pass ------------------------------------------------------------------------------------------
@program_pass(NAME)
def fuse_attention_lstm(work: Work) -> int:
    """Counts loops."""
    changes = 0
    while _one(work):
        changes += 1
    return changes


def _one(work: Work) -> bool:
    block = work.block
    if not work.whole:
        return False
    uses = work.uses(block)
    for at, loop in enumerate(block.ops):
        if loop.type != "while" or not any(op.type == "sequence_softmax" for op in loop.sub_blocks()[0].ops):
            continue
        finder = Finder(work, uses, at)
        try:
            rnn = finder.find()
        except Refused as why_not:
            work.refuse(NAME, loop, str(why_not))
            continue
        match = body_match(work, finder.block, _WHOLE, FRAME) or body_match(work, finder.block, _APART, FRAME)
        why = "its step is not an LSTM over a mean of the sequence" if match is None else _why_not(work, finder, match)
        if match is None or why is not None:
            work.refuse(NAME, loop, why or "")
            continue
        _replace(work, rnn, match)
        return True
    return False


def _replace(work: Work, rnn: Loop, match: Match) -> None:
    made = _build(work, rnn, match)
    ops: list[Operator] = []
    for at, op in enumerate(work.block.ops):
        if op is rnn.operator:
            ops += made
        elif at not in rnn.gone:
            ops.append(op)
    work.block.ops = ops
    work.program._touch()


def _new(match: Match) -> tuple[str, str]:
    """Hidden and cell state that a step leaves."""
    unit = match.get("unit")
    if unit is not None:
        return unit.output("H")[0], unit.output("C")[0]
    return match["hidden"].output("Out")[0], match["new"].output("Out")[0]


def _why_not(work: Work, finder: Finder, match: Match) -> str | None:
    rnn, names, (hidden, cell) = finder.loop, match.names, _new(match)
    if rnn.grad_at is not None:
        return "there is a gradient of while"
    if {(m.read, m.becomes) for m in rnn.memories} != {(names["hidden"], hidden), (names["cell"], cell)}:
        return "it carries other states than hidden and cell"
    left = [name for name, _ in rnn.outputs]
    if any(name not in (hidden, cell) for name in left) or len(set(left)) < len(left):
        return "it leaves other results than hidden and cell, each once"
    whole = rnn.statics.get(names["rows"])
    if whole is None or whole != finder.ranked:
        return "it does not walk through the sequence that the attention sees"
    outer = work.block._var_recursive(whole)
    if outer.lod_level != 1 or len(outer.shape) != 2:
        return f"{whole!r} has {outer.lod_level} LoD levels and {len(outer.shape)} dims, not 1 and 2"
    for memory in rnn.memories:
        if memory.ranked:
            return f"the first value of {memory.read!r} is not in the order of the sequences"
    return _settings_differ(match) or _unknown(work, match)


def _settings_differ(match: Match) -> str | None:
    flat, weighted, mean = match.get("flat"), match["weighted"], match["mean"]
    if mean.attr("pooltype") != "SUM":
        return f"the rows are pooled by {mean.attr('pooltype')}, not summed"
    if flat is not None and (flat.attr("shape") != [-1] or flat.input("Shape") or flat.input("ShapeTensor")):
        return "the weights are reshaped to something else than one dim"
    if weighted.attr("axis") != 0 and not (flat is None and weighted.attr("axis") == -1):
        return "the weights go along another dim"
    if match["spread"].type == "sequence_expand" and match["spread"].attr("ref_level") not in (-1, 0):
        return "the cell is spread along another LoD level"
    for mark in ("score", "gates"):
        joint = match.get(f"joint_{mark}")
        if joint is not None and (joint.attr("axis") not in (1, -1) or joint.input("AxisTensor")):
            return "variables are joined along another dim"
    for name, at in match.found.positions.items():
        op = match.uses.ops[at]
        if name.startswith(("product_", "other_")) or name == "scaled":
            if op.attr("x_num_col_dims") != 1 or op.attr("y_num_col_dims") != 1:
                return "a product takes several dims as one"
        elif name.startswith("bias_") and op.input("Y") != [match.names[f"b_{name[5:]}"]]:
            return "a bias stands on the left"
    return None


def _unknown(work: Work, match: Match) -> str | None:
    leaves = [n for leaf, n in match.names.items() if leaf not in ("rows", "hidden", "cell")]
    values = [work.value(n) for n in leaves]
    if any(v is None for v in values):
        return "the values of the parameters are not known"
    if len({v.dtype for v in values if v is not None}) != 1:
        return "its parameters have several dtypes"
    width = match.shape(match.names["cell"])
    bias = match.names.get("b_score")
    if width is None or width[-1] < 0 or (bias is not None and work.value(bias).numel() != 1):  # type: ignore[union-attr]
        return "the width of the cell is not known"
    held = _weight(work, match, "score", False)
    return None if held.shape[1] == 1 else f"the attention gives {held.shape[1]} scores a row, not one"


# ---- the operator --------------------------------------------------------------------------------------
def _held(work: Work, name: str) -> torch.Tensor:
    found = work.value(name)
    assert found is not None  # _unknown looked
    return found


def _weight(work: Work, match: Match, mark: str, second_first: bool) -> torch.Tensor:
    """The matrix of a product over [first, second], or with `second_first` over [second, first]."""
    names, (rows, width) = match.names, _widths(match)
    first = rows  # of the two operands: rows, or their mean
    if f"first_{mark}" in names:
        parts = [_held(work, names[f"{one}_{mark}"]) for one in ("first", "second")]
    else:
        forth = f"forth_{mark}" in names
        joined = _held(work, names[f"forth_{mark}" if forth else f"back_{mark}"])
        parts = list(joined.split([first, width] if forth else [width, first]))
        parts = parts if forth else parts[::-1]
    return torch.cat(parts[::-1] if second_first else parts)


def _widths(match: Match) -> tuple[int, int]:
    rows, cell = match.shape(match.names["rows"]), match.shape(match.names["cell"])
    assert rows is not None and cell is not None
    return rows[-1], cell[-1]


def _bias(work: Work, match: Match, mark: str, width: int, like: torch.Tensor) -> torch.Tensor:
    name = match.names.get(f"b_{mark}")
    return like.new_zeros(width) if name is None else _held(work, name).reshape(-1)


def _gates(work: Work, match: Match) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight [D + M, 4D], hidden first, and bias [1, 4D]; gates: forget, input, output, candidate."""
    width, unit = _widths(match)[1], match.get("unit")
    if unit is None:
        weights = [_weight(work, match, mark, True) for mark in "fioc"]
        biases = [_bias(work, match, mark, width, weights[0]) for mark in "fioc"]
    else:
        whole = _weight(work, match, "gates", True)
        i, f, o, c = whole.chunk(4, 1)
        weights = [f, i, o, c]
        i, f, o, c = _bias(work, match, "gates", 4 * width, whole).chunk(4)
        biases = [f + unit.attr("forget_bias"), i, o, c]
    return torch.cat(weights, 1), torch.cat(biases).reshape(1, -1)


def _build(work: Work, rnn: Loop, match: Match) -> list[Operator]:
    names, block = match.names, work.block
    sequence = rnn.statics[names["rows"]]
    weight, bias = _gates(work, match)
    stored = {"AttentionWeight": _weight(work, match, "score", False), "LSTMWeight": weight, "LSTMBias": bias}
    for slot, leaf in (("AttentionBias", "b_score"), ("AttentionScalar", "scalar"), ("AttentionScalarBias", "b_scalar")):
        if leaf in names:
            stored[slot] = _held(work, names[leaf]).reshape(1, 1)
    inputs = {slot: [work.store(f"{NAME}.{slot}", held)] for slot, held in stored.items()}
    inputs["X"] = [sequence]
    made = []
    for slot, leaf in (("C0", "cell"), ("H0", "hidden")):
        first = next(m.init for m in rnn.memories if m.read == names[leaf])
        if isinstance(first, str):
            inputs[slot] = [first]
        elif slot == "C0" or first:
            shape = (-1, _widths(match)[1])
            start = work.declare(block, sequence, shape=shape, lod_level=0)
            attrs = {"shape": list(shape), "value": first, "dtype": block.vars[start].dtype}
            slots = {"Input": [sequence]}, {"Out": [start]}
            made.append(Operator(block, "fill_constant_batch_size_like", *slots, attrs, rnn.operator.site))
            inputs[slot] = [start]
    results = dict(rnn.outputs)
    outputs = {}
    for slot, new in zip(("Hidden", "Cell"), _new(match)):
        outputs[slot] = [results[new] if new in results else work.declare(block, next(iter(results.values())))]
    for slot in ("AttentionedX", "AttentionFCOut", "LSTMX", "LSTMOUT"):
        outputs[slot] = [work.declare(block, sequence, lod_level=0)]
    made.append(Operator(block, "attention_lstm", inputs, outputs, {}, rnn.operator.site))
    return made
