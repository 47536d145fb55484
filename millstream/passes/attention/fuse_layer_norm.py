"""Layer normalisation written out (mean, difference, mean of squares, root, product, gain, shift) -> layer_norm.

Gain and shift, either or both, may be absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from millstream.ir.operator import Operator
from millstream.passes._pass import register
from millstream.passes._pattern import Either, Node, Pattern, constant, either, node, value
from millstream.passes._rule import Match, Rule


def _normalised() -> Pattern:
    x = value("x")
    centred = node("elementwise_sub", "centred", X=x, Y=node("reduce_mean", "mean", X=x))
    square = either(
        node("square", X=centred), node("elementwise_mul", X=centred, Y=centred), node("pow", "power", X=centred)
    )
    variance = node("reduce_mean", "variance", X=square)
    safe = either(node("scale", "more", X=variance), node("elementwise_add", "added", X=variance, Y=constant("eps")))
    return either(
        node("elementwise_div", "result", X=centred, Y=node("sqrt", X=safe)),
        node("elementwise_mul", "result", X=centred, Y=node("rsqrt", X=safe)),
        node("elementwise_div", "result", X=centred, Y=node("pow", "half", X=safe)),
    )


def _patterns() -> Iterator[Node]:
    """The longest first."""
    for shift in (True, False):
        for gain in (True, False):
            result = _normalised()
            if gain:
                result = node("elementwise_mul", "gained", X=result, Y=constant("gain"))
            if shift:
                result = node("elementwise_add", "shifted", X=result, Y=constant("shift"))
            choices = result.choices if isinstance(result, Either) else (result,)
            yield from (choice for choice in choices if isinstance(choice, Node))


def _epsilon(found: Match) -> float | None:
    more = found.get("more")
    if more is not None:
        plain = more.attr("scale") == 1.0 and not more.input("ScaleTensor")
        return float(more.attr("bias")) if plain else None
    held = found.work.value(found.names["eps"])
    return float(held) if held is not None and held.numel() == 1 else None


def _first_axis(found: Match) -> int | str:
    """The first of the dims that are normalised; they must be the last ones. Else why not."""
    shape = found.shape(found.names["x"])
    if shape is None:
        return "the shape is not known"
    dims = []
    for name in ("mean", "variance"):
        op = found[name]
        if op.attr("reduce_all"):
            return "the mean goes over all dims"
        dims.append(sorted(d % len(shape) for d in op.attr("dim")))
        kept = op.attr("keep_dim")
        if not kept and dims[-1] != list(range(dims[-1][0], len(shape))):
            return "a mean drops dims that are not the last"
        if not kept:
            return "a mean drops its dims"
    first = dims[0][0]
    if dims[0] != dims[1] or dims[0] != list(range(first, len(shape))) or first == 0:
        return f"the means go over dims {dims[0]} and {dims[1]}, not over the same last ones"
    return first


def _why_not(found: Match) -> str | None:
    first = _first_axis(found)
    if isinstance(first, str):
        return first
    for name, power in (("power", 2.0), ("half", 0.5)):
        op = found.get(name)
        if op is not None and (op.attr("factor") != power or op.input("FactorTensor")):
            return f"a power is not {power}"
    epsilon = _epsilon(found)
    if epsilon is None or epsilon <= 0:
        return "what is added to the variance is not a positive constant"
    shape = found.shape(found.names["x"])
    assert shape is not None  # _first_axis looked
    width = math.prod(shape[first:])
    for name, leaf in (("gained", "gain"), ("shifted", "shift")):
        if leaf not in found.names:
            continue
        held, axis = found.shape(found.names[leaf]), found[name].attr("axis")
        if held is None or min(shape[first:]) < 0 or math.prod(held) != width or held[-1] != shape[-1]:
            return f"{leaf} has shape {list(held or ())}, not that of the normalised dims {list(shape[first:])}"
        if found[name].input("Y") != [found.names[leaf]] or axis not in (-1, len(shape) - len(held)):
            return f"{leaf} stands at axis {axis}"
        if len(held) > 1 and found.work.value(found.names[leaf]) is None:
            return f"{leaf} has several dims and its value is not known"
    return None


def _build(found: Match) -> Operator:
    first = _first_axis(found)
    assert isinstance(first, int)  # _why_not looked
    inputs = {"X": [found.names["x"]]}
    for slot, leaf in (("Scale", "gain"), ("Bias", "shift")):
        name = found.names.get(leaf)
        if name is None:
            continue
        held = found.work.value(name)
        if held is not None and held.dim() > 1:
            name = found.work.store(name, held.reshape(-1))
        inputs[slot] = [name]
    attrs = {"epsilon": _epsilon(found), "begin_norm_axis": first}
    return found.make("layer_norm", inputs, {"Y": found.ops[-1].output("Out")}, **attrs)


_rules = [Rule("fuse_layer_norm", pattern, _why_not, _build) for pattern in _patterns()]
register("fuse_layer_norm", lambda work: sum(rule(work) for rule in _rules))
