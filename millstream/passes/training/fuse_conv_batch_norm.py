"""batch_norm (+ relu) that a 1x1, depthwise or grouped convolution takes -> no operator: it normalises as it reads.

The convolution before it, where it is of the same kinds, sums up the statistics, and takes the gradient as its parts
(ops/nn/normed_conv.py says which). Large maps are then read and written once by each convolution, not five times. It does so
also where none takes the normalised map, which then is made in one pass, as the sums of its gradient are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from millstream.ir.names import EMPTY_VAR
from millstream.ir.operator import Operator
from millstream.ir.types import VarType
from millstream.ops.nn._bend import NONE
from millstream.ops.nn._conv_grouped import takes
from millstream.ops.nn._normed_conv import CHANNELS, is_depthwise, is_pointwise, takes_curve
from millstream.ops.nn._normed_pairs import takes as takes_pairs
from millstream.passes._pass import program_pass
from millstream.passes._rewrite import operator_like, replace_all
from millstream.passes._uses import Uses
from millstream.passes._work import Work

_NAME = "fuse_conv_batch_norm"
_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
_NORMS = ("batch_norm", "batch_norm_relu")
_OTHER = ("is_test", "use_global_stats", "fuse_with_relu")
_LEAST = 7_000  # elements of a picture's map: smaller ones stay in the caches
_TYPES = VarType.FP32, VarType.BF16
_FORM = ("strides", "paddings", "dilations", "groups")


@dataclass
class _Edge:
    """Positions of a normalisation between two convolutions.

    `maker` and `maker_grad` are None where the first convolution is of another form, `conv` and `conv_grad` where the second
    is; line: the variable of the gradient's parts, given: of dZ or, with a `bend`, of what is dZ behind an activation.
    """

    norm: int
    norm_grad: int
    conv: int | None = None
    conv_grad: int | None = None
    maker: int | None = None
    maker_grad: int | None = None
    line: str = ""
    given: str = ""
    bend: tuple[float, float] = NONE


@program_pass(_NAME)
def fuse_conv_batch_norm(work: Work) -> int:
    """Returns how many normalisations are left to convolutions."""
    uses = work.uses(work.block)
    edge: _Edge | str | None
    before: dict[int, _Edge] = {}  # by the position of the convolution that takes the normalised map
    after: dict[int, _Edge] = {}  # by that of the one that makes the map
    for at, op in enumerate(uses.ops):
        if op.type not in _NORMS:
            continue
        edge = _edge(work, uses, at)
        if not isinstance(edge, _Edge):
            edge = _alone(work, uses, at) or edge
        if isinstance(edge, str):
            work.refuse(_NAME, op, edge)
        if not isinstance(edge, _Edge):
            continue
        if edge.conv is not None:
            before[edge.conv] = edge
        if edge.maker is not None:
            after[edge.maker] = edge
    if not before and not after:
        return 0
    replaced: dict[int, Operator | None] = {}
    edges = {edge.norm: edge for edge in (*before.values(), *after.values())}
    for edge in edges.values():
        replaced[edge.norm], replaced[edge.norm_grad] = _norm_operators(work, uses, edge)
    for at in {*before, *after}:
        near, far = before.get(at), after.get(at)
        grad = near.conv_grad if near is not None else far.maker_grad if far is not None else None
        if grad is not None:
            replaced[at], replaced[grad] = _build(work, uses, at, grad, near, far)
    replace_all(work, replaced)
    return len(edges)


def _edge(work: Work, uses: Uses, norm: int) -> _Edge | str | None:
    """The normalisation at `norm` with its convolutions, or why it stays; None where no convolution alone takes it."""
    op = uses.ops[norm]
    y = op.output("Y")[0]
    conv = next((p for p in uses.readers[y] if p > norm and uses.ops[p].type in _CONVOLUTIONS), None)
    if conv is None or not _is_plain(op) or (op.type == "batch_norm_relu" and op.input("Residual")):
        return None
    why = _form(work, uses.ops[conv]) or _other_curve(work, op, uses.ops[conv])
    if why is not None:
        return why
    conv_grad = uses.reader(y, uses.ops[conv].type + "_grad", "Input")
    if conv_grad is None or not uses.ops[conv_grad].output("Input@GRAD"):
        return "the convolution has no gradient, or several"
    norm_grad = uses.reader(uses.ops[conv_grad].output("Input@GRAD")[0], op.type + "_grad", "Y@GRAD")
    if norm_grad is None or not uses.ops[norm_grad].output("X@GRAD"):
        return "batch_norm has no gradient, or several"
    edge = _Edge(norm, norm_grad, conv, conv_grad)
    why = _why_not(work, uses, edge, conv, conv_grad)
    if why is None:
        _link(work, uses, edge)
    return why or edge


def _is_plain(norm: Operator) -> bool:
    """Whether it normalises by the statistics of the batch, a map in Fluid's order."""
    other = norm.type == "batch_norm" and any(norm.attr(name) for name in _OTHER)
    return not other and norm.attr("data_layout") in (None, "NCHW", "AnyLayout")


def _alone(work: Work, uses: Uses, norm: int) -> _Edge | None:
    """The normalisation at `norm` with the convolution before it alone, or None."""
    op = uses.ops[norm]
    if not _is_plain(op) or not op.output("SavedMean"):
        return None
    found = [p for p in uses.readers[op.output("SavedMean")[0]] if uses.ops[p].type == op.type + "_grad"]
    if len(found) != 1 or not uses.ops[found[0]].output("X@GRAD"):
        return None
    edge = _Edge(norm, found[0])
    if _small(work, op) or _other_gradient(uses, edge) or _changed(uses, edge):
        return None
    _link(work, uses, edge)
    if edge.maker is None or edge.maker_grad is None or _curve_of_groups(work, op, uses.ops[edge.maker]):
        return None
    grad = uses.ops[edge.norm_grad]
    given = [*grad.input("Y@GRAD"), *grad.output("Residual@GRAD")]
    return None if uses.written_between(given, edge.norm_grad, edge.maker_grad) else edge


def _form(work: Work, conv: Operator) -> str | None:
    """Why the kernels do not take a convolution."""
    x, w = (work.block._find_var_recursive(conv.input(slot)[0]) for slot in ("Input", "Filter"))
    if x is None or w is None or not x.has_shape or not w.has_shape or x.dtype not in _TYPES or x.dtype != w.dtype:
        return "a shape is not known, or it is neither float32 nor bfloat16"
    if conv.input("Bias") or conv.input("ResidualData") or conv.attr("use_mkldnn"):
        return "the convolution has more inputs"
    layouts, paddings = (None, "NCHW", "AnyLayout"), (None, "EXPLICIT")
    if conv.attr("data_format") not in layouts or conv.attr("padding_algorithm") not in paddings:
        return "it has another layout, or padding by an algorithm"
    strides, paddings, dilations, groups = (conv.attr(a) for a in _FORM)
    if len(x.shape) != 4 or len(paddings) != 2 or min(x.shape[1], w.shape[0]) < CHANNELS:
        return f"there are fewer than {CHANNELS} channels, or paddings differ at the two ends"
    form = strides, paddings, dilations, groups
    if x.dtype is VarType.BF16:
        taken = is_pointwise(w.shape, strides, paddings, groups) and takes_pairs(w.shape)
        return None if taken else "the filter of a bfloat16 map is not 1x1, or the processor has no products for it"
    if is_pointwise(w.shape, strides, paddings, groups) or is_depthwise(w.shape, *form):
        return None
    return None if takes(x.shape[1], w.shape, *form) else "the filter is neither 1x1 nor 3x3, depthwise or of groups"


def _other_curve(work: Work, norm: Operator, conv: Operator) -> str | None:
    """Why the kernels do not read what a swish behind `norm` makes."""
    w = work.block._find_var_recursive(conv.input("Filter")[0])
    taken = w is not None and takes_curve(_bend(norm)[0], w.shape, conv.attr("groups"))
    return None if taken else "filters of groups, or depthwise ones, do not read what swish makes"


def _curve_of_groups(work: Work, norm: Operator, maker: Operator) -> bool:
    """Whether the convolution would take its gradient through a swish behind `norm`, and can't."""
    w = work.block._find_var_recursive(maker.input("Filter")[0])
    return _bend(norm)[0] < 0 and w is not None and maker.attr("groups") > 1 and w.shape[1] > 1


def _why_not(work: Work, uses: Uses, edge: _Edge, conv: int, conv_grad: int) -> str | None:
    norm = uses.ops[edge.norm]
    why = _small(work, norm) or _other_gradient(uses, edge)
    if why is not None:
        return why
    inside = [norm.output("Y")[0], uses.ops[conv_grad].output("Input@GRAD")[0]]
    kept = uses.why_kept(inside, (edge.norm, conv, conv_grad, edge.norm_grad))
    gradients = [n for s in ("Scale@GRAD", "Bias@GRAD") for n in uses.ops[edge.norm_grad].output(s)]
    touched = uses.touched_between(gradients, conv_grad, edge.norm_grad)
    return kept or _changed(uses, edge) or (None if touched is None else f"{touched!r} is read or written in between")


def _small(work: Work, norm: Operator) -> str | None:
    x = work.block._find_var_recursive(norm.input("X")[0])
    if x is None or not x.has_shape or any(d < 0 for d in x.shape[1:]) or prod(x.shape[1:]) < _LEAST:
        return "the map is small, or its size is not known"
    return None


def _other_gradient(uses: Uses, edge: _Edge) -> str | None:
    """Why the gradients are not those of this place alone."""
    norm, norm_grad = uses.ops[edge.norm], uses.ops[edge.norm_grad]
    if norm_grad.input("SavedMean") != norm.output("SavedMean") or norm_grad.input("X") != norm.input("X"):
        return "the gradient is another batch_norm's"
    if any(uses.has_gradient(uses.ops[p]) for p in (edge.norm_grad, edge.conv_grad) if p is not None):
        return "its gradient has a gradient"
    return None


def _changed(uses: Uses, edge: _Edge) -> str | None:
    """Why what is normalised, and with what, is not there any more for the gradient."""
    norm = uses.ops[edge.norm]
    changed = uses.written_between(
        [n for s in ("X", "Scale", "Bias") for n in norm.input(s)], edge.norm, edge.norm_grad
    ) or next((n for s in ("SavedMean", "SavedVariance") for n in norm.output(s) if len(uses.writers[n]) > 1), None)
    return None if changed is None else f"{changed!r} is overwritten in between"


def _link(work: Work, uses: Uses, edge: _Edge) -> None:
    """Find the convolution that makes the map, if it can take over statistics and gradient."""
    ops = uses.ops
    norm = ops[edge.norm]
    x, gradient = norm.input("X")[0], ops[edge.norm_grad].output("X@GRAD")[0]
    maker = uses.producer(x, edge.norm)
    if maker is None or ops[maker].type not in _CONVOLUTIONS or _form(work, ops[maker]) is not None:
        return
    maker_grad = uses.reader(gradient, ops[maker].type + "_grad", "Output@GRAD")
    if maker_grad is None or ops[maker_grad].input("Filter") != ops[maker].input("Filter"):
        return
    if ops[maker_grad].input("Input") != ops[maker].input("Input") or not ops[maker_grad].output("Filter@GRAD"):
        return
    taken = (edge.norm_grad, maker_grad)
    if uses.has_gradient(ops[maker_grad]) or uses.why_kept([gradient], taken) or len(uses.writers[x]) > 1:
        return
    running = [n for s in ("Mean", "Variance", "MomentumTensor") for n in norm.input(s)]
    made = [n for s in ("MeanOut", "VarianceOut", "SavedMean", "SavedVariance") for n in norm.output(s)]
    if uses.written_between(running, maker, edge.norm) or uses.touched_between(made, maker, edge.norm):
        return
    edge.maker, edge.maker_grad = maker, maker_grad


def _attributes(norm: Operator, *names: str) -> dict[str, object]:
    return {name: norm.attr(name) for name in names if norm.attr(name) is not None}


def _running(norm: Operator) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What the statistics of a normalisation are made from, but for its X, and their names."""
    inputs = {s: norm.input(s) for s in ("Mean", "Variance", "MomentumTensor") if norm.input(s)}
    return inputs, {s: norm.output(s) for s in ("MeanOut", "VarianceOut", "SavedMean", "SavedVariance")}


def _norm_operators(work: Work, uses: Uses, edge: _Edge) -> tuple[Operator | None, Operator | None]:
    """What stands in the places of a normalisation and its gradient; chooses the edge's variables."""
    norm = uses.ops[edge.norm]
    masked = edge.conv is None and norm.type == "batch_norm_relu" and not norm.input("Residual")
    edge.line = work.declare(work.block, norm.input("Scale")[0], shape=(5 if masked else 3, -1), stop_gradient=True)
    if edge.conv_grad is None:
        return _apply(work, norm), _line_grad(work, uses, edge)
    edge.given = uses.ops[edge.conv_grad].output("Input@GRAD")[0]
    if edge.maker is not None:
        return None, None
    return _statistics(work, uses, edge), _finish(work, uses, edge)


def _bend(norm: Operator) -> tuple[float, float]:
    """Slope and most of the activation."""
    return (norm.attr("slope"), norm.attr("most")) if norm.type == "batch_norm_relu" else NONE


def _bent(bend: tuple[float, float], before: str = "") -> dict[str, object]:
    return {before + "slope": bend[0], before + "most": bend[1]}


def _apply(work: Work, norm: Operator) -> Operator:
    inputs = {s: norm.input(s) for s in ("X", "Scale", "Bias", "Residual") if norm.input(s)}
    inputs.update({s: norm.output(s) for s in ("SavedMean", "SavedVariance")})
    return operator_like(work, norm, "batch_norm_apply", inputs, {"Y": norm.output("Y")}, _bent(_bend(norm)))


def _line_grad(work: Work, uses: Uses, edge: _Edge) -> Operator:
    norm, grad = uses.ops[edge.norm], uses.ops[edge.norm_grad]
    inputs = {s: grad.input(s) for s in ("X", "Scale", "SavedMean", "SavedVariance", "Y@GRAD")}
    inputs["Bias"] = norm.input("Bias")
    outputs = {s: grad.output(s) for s in ("Scale@GRAD", "Bias@GRAD") if grad.output(s)}
    outputs["Line"] = [edge.line]
    edge.given, edge.bend = grad.input("Y@GRAD")[0], _bend(norm)
    if norm.input("Residual"):
        inputs["Y"] = norm.output("Y")
        names = [n for n in grad.output("Residual@GRAD") if n != EMPTY_VAR]
        edge.given = names[0] if names else work.declare(work.block, norm.input("X")[0], stop_gradient=True)
        outputs["dZ"] = [edge.given]
    return operator_like(work, grad, "batch_norm_line_grad", inputs, outputs, _bent(_bend(norm)))


def _statistics(work: Work, uses: Uses, edge: _Edge) -> Operator:
    norm = uses.ops[edge.norm]
    inputs, outputs = _running(norm)
    inputs["X"], attrs = norm.input("X"), _attributes(norm, "momentum", "epsilon")
    return operator_like(work, norm, "batch_norm_statistics", inputs, outputs, attrs)


def _finish(work: Work, uses: Uses, edge: _Edge) -> Operator:
    grad = uses.ops[edge.norm_grad]
    inputs = {"X": grad.input("X"), "dZ": [edge.given], "Line": [edge.line]}
    outputs = {"X@GRAD": grad.output("X@GRAD")}
    return operator_like(work, grad, "batch_norm_finish_grad", inputs, outputs)


def _build(
    work: Work, uses: Uses, at: int, at_grad: int, near: _Edge | None, far: _Edge | None
) -> tuple[Operator, Operator]:
    """The convolution at `at` with the normalisations before and behind it, and its gradient."""
    conv, grad = uses.ops[at], uses.ops[at_grad]
    inputs, outputs = {"Input": conv.input("Input"), "Filter": conv.input("Filter")}, {"Output": conv.output("Output")}
    wanted = {s: grad.output(s) for s in ("Input@GRAD", "Filter@GRAD") if grad.output(s)}
    attrs = _attributes(conv, *_FORM)
    if near is not None:
        norm, norm_grad = uses.ops[near.norm], uses.ops[near.norm_grad]
        inputs["Input"] = norm.input("X")
        inputs.update(NormScale=norm.input("Scale"), NormBias=norm.input("Bias"))
        inputs.update(NormMean=norm.output("SavedMean"), NormInverse=norm.output("SavedVariance"))
        wanted.update({f"Norm{s}": norm_grad.output(s) for s in ("Scale@GRAD", "Bias@GRAD") if norm_grad.output(s)})
        wanted["InputLine"] = [near.line]
        attrs.update(_bent(_bend(norm)))
    given = {**inputs, "Output@GRAD": grad.input("Output@GRAD")}
    own = dict(attrs)
    if far is not None:
        norm = uses.ops[far.norm]
        more, statistics = _running(norm)
        inputs.update(more)
        outputs.update(statistics)
        own.update(_attributes(norm, "momentum", "epsilon"))
        given.update({"Output": conv.output("Output"), "Line": [far.line]})
        given["Output@GRAD"] = [far.given]
    behind = {**attrs, **_bent(far.bend if far is not None else NONE, "line_")}
    forward = operator_like(work, conv, "normed_conv2d", inputs, outputs, own)
    backward = operator_like(work, grad, "normed_conv2d_grad", given, wanted, behind)
    backward.forward = forward
    return forward, backward
