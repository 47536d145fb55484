"""gelu, swish and hard_swish written out -> one operator. Without gradients."""

from __future__ import annotations

import math

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import Input, Node, either, node, value
from millstream.passes._rule import Match, Rule
from millstream.passes._work import Work

_ROOT, _TANH, _CUBIC = math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715
_FACTORS = {
    "half": (0.5, 0.0), "plus": (1.0, 1.0), "root": (_ROOT, 0.0), "tanh_of": (_TANH, 0.0), "cubic": (_CUBIC, 0.0),
    "three": (1.0, 3.0), "sixth": (1 / 6, 0.0),
}  # fmt: skip
"""scale and bias of the `scale` operators of the patterns, by node name."""

_x = value("x")


def _scale(name: str, inner: Input) -> Node:
    return node("scale", name, X=inner)


def _product(inner: Input) -> Node:
    return node("elementwise_mul", "product", X=_x, Y=inner)


_erf = node("erf", "erf", X=_scale("root", _x))
_cube = node("elementwise_add", "inner", X=_x, Y=_scale("cubic", node("pow", "pow", X=_x)))
_tanh = node("tanh", "tanh", X=_scale("tanh_of", _cube))
_plus = _scale("plus", either(_erf, _tanh))
_relu6 = node("relu6", "relu6", X=_scale("three", _x))

_GELU = (
    node("elementwise_mul", "product", X=_scale("half", _x), Y=_plus), _product(_scale("half", _plus)),
    _scale("half", _product(_plus)),
)  # fmt: skip
_SWISH = (_product(node("sigmoid", "sigmoid", X=_x)),)
_HARD = (
    _scale("sixth", _product(_relu6)), _product(_scale("sixth", _relu6)),
    node("elementwise_mul", "product", X=_scale("sixth", _x), Y=_relu6), _product(node("hard_sigmoid", "gate", X=_x)),
)  # fmt: skip


def _why_not(found: Match) -> str | None:
    for name, (scale, bias) in _FACTORS.items():
        op = found.get(name)
        if op is None:
            continue
        given = op.attr("scale"), op.attr("bias")
        if op.input("ScaleTensor") or not all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(given, (scale, bias))):
            return f"it scales by {given[0]:g} and adds {given[1]:g}, not {scale:g} and {bias:g}"
    power, relu6, gate = found.get("pow"), found.get("relu6"), found.get("gate")
    if power is not None and (power.attr("factor") != 3.0 or power.input("FactorTensor")):
        return "the power is not 3"
    if relu6 is not None and relu6.attr("threshold") != 6.0:
        return f"the threshold is {relu6.attr('threshold')}, not 6"
    if gate is not None and not (math.isclose(gate.attr("slope"), 1 / 6, rel_tol=1e-4) and gate.attr("offset") == 0.5):
        return "the slope is not 1/6, or the offset not 0.5"
    return None


def _out(found: Match) -> dict[str, list[str]]:
    return {"Out": found.ops[-1].output("Out")}


def _gelu(found: Match) -> Operator:
    return found.make("gelu", {"X": [found.names["x"]]}, _out(found), approximate=found.get("tanh") is not None)


def _swish(found: Match) -> Operator:
    return found.make("swish", {"X": [found.names["x"]]}, _out(found), beta=1.0)


def _hard_swish(found: Match) -> Operator:
    return found.make("hard_swish", {"X": [found.names["x"]]}, _out(found), threshold=6.0, scale=6.0, offset=3.0)


_RULES = tuple(
    Rule("fuse_activations", pattern, _why_not, build)
    for patterns, build in ((_GELU, _gelu), (_SWISH, _swish), (_HARD, _hard_swish))
    for pattern in patterns
)


def fuse_activations(work: Work) -> int:
    """Counts operators made."""
    return sum(rule(work) for rule in _RULES)


register("fuse_activations", fuse_activations)
