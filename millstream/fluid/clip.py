"""Clipping of gradients, of parameters (before the optimizer) and of any variable (while they are computed)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from millstream.errors import ArgumentError, InvalidProgramError
from millstream.fluid.layers._build import append
from millstream.ir import mode
from millstream.ir.program import default_main_program, name_scope
from millstream.ir.types import VarType
from millstream.ir.variable import Parameter

__all__ = [
    "ErrorClipByValue",
    "GradientClipByGlobalNorm",
    "GradientClipByNorm",
    "GradientClipByValue",
    "set_gradient_clip",
]

Pairs = list[tuple[Any, Any]]


# ---- gradients of any variable ---------------------------------------------------------------------
class BaseErrorClipAttr:
    """What ``variable.error_clip`` may be; clips the variable's gradient on its way back."""

    def _append_clip_op(self, block: Any, grad_name: str) -> None:
        raise NotImplementedError


class ErrorClipByValue(BaseErrorClipAttr):
    """Limit the gradient of a variable to [min, max]; `min` is -max when None. Set as ``variable.error_clip``.

    optimizer.minimize and optimizer.backward apply it; append_backward only with error_clip_callback.
    """

    def __init__(self, max: float, min: float | None = None) -> None:
        self.max, self.min = _limits("ErrorClipByValue", max, min)

    def __str__(self) -> str:
        return f"ByValue, min={self.min:f}, max={self.max:f}"

    def _append_clip_op(self, block: Any, grad_name: str) -> None:
        block.append_op("clip", {"X": [grad_name]}, {"Out": [grad_name]}, {"min": self.min, "max": self.max})


def error_clip_callback(block: Any, context: dict[str, str]) -> None:
    """Callback for append_backward: clips the gradients that the last operator of `block` made complete."""
    for name in block.ops[-1].output_arg_names:
        var = block._find_var_recursive(context[name]) if name in context else None
        error_clip = var.error_clip if var is not None else None
        if var is None or error_clip is None:
            continue
        if not isinstance(error_clip, BaseErrorClipAttr):
            raise TypeError(
                f"error_clip of {var.describe()} must be an ErrorClipByValue, received {type(error_clip).__name__}"
            )
        error_clip._append_clip_op(block, name)


def _limits(who: str, max: Any, min: Any) -> tuple[float, float]:
    high = float(max)
    if min is not None:
        return high, float(min)
    if high <= 0:
        raise InvalidProgramError(f"{who}: max must be positive when min is not given, received {high}")
    return high, -high


# ---- gradients of parameters ---------------------------------------------------------------------
class GradientClipBase:
    """Base of gradient clips: called with (parameter, gradient) pairs, returns pairs with clipped gradients.

    Args:
        need_clip: parameter -> whether its gradient is clipped; all are when None.
    """

    def __init__(self, need_clip: Callable[[Any], bool] | None = None) -> None:
        if need_clip is not None and not callable(need_clip):
            raise ArgumentError(
                f"{type(self).__name__}: need_clip must be a function of the parameter, received {type(need_clip).__name__}"
            )
        self._need_clip_func = need_clip

    def __call__(self, params_grads: Pairs) -> Pairs:
        chosen = [
            (p, g) for p, g in params_grads if g is not None and (self._need_clip_func is None or self._need_clip_func(p))
        ]
        with name_scope("gradient_clip"):
            clipped = {id(p): g for p, g in self._clip(chosen)} if chosen else {}
        return [(p, clipped.get(id(p), g)) for p, g in params_grads]

    def _clip(self, params_grads: Pairs) -> Pairs:
        """The chosen pairs, clipped. A class of the user's may define 1.8.5's methods of the two modes instead."""
        theirs = getattr(self, "_static_clip" if mode.tracer() is None else "_dygraph_clip", None)
        if theirs is not None:
            return theirs(params_grads)  # type: ignore[no-any-return]
        return [(p, self._clip_one(p, g)) for p, g in params_grads]

    def _clip_one(self, param: Any, grad: Any) -> Any:
        with param.block.program._optimized_guard([param, grad]):
            return self._clipped(grad)

    def _clipped(self, grad: Any) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__} must define _static_clip(params_grads) for Programs, _dygraph_clip for the eager mode"
        )


class GradientClipByValue(GradientClipBase):
    """Limit every element of the gradients to [min, max]; `min` is -max when None."""

    def __init__(self, max: float, min: float | None = None, need_clip: Callable[[Any], bool] | None = None) -> None:
        super().__init__(need_clip)
        self.max, self.min = _limits("GradientClipByValue", max, min)

    def __str__(self) -> str:
        return f"Gradient Clip By Value, min = {self.min:f}, max={self.max:f}"

    def _clipped(self, grad: Any) -> Any:
        return append("clip", "clip", {"X": grad}, {"min": self.min, "max": self.max}, dtype=grad.dtype)


class GradientClipByNorm(GradientClipBase):
    """Scale each gradient whose L2 norm is greater than `clip_norm` down to that norm."""

    def __init__(self, clip_norm: float, need_clip: Callable[[Any], bool] | None = None) -> None:
        super().__init__(need_clip)
        self.clip_norm = float(clip_norm)

    def __str__(self) -> str:
        return f"Gradient Clip By Norm, clip_norm={self.clip_norm:f}"

    def _clipped(self, grad: Any) -> Any:
        return append("clip_by_norm", "clip_by_norm", {"X": grad}, {"max_norm": self.clip_norm}, dtype=grad.dtype)


class GradientClipByGlobalNorm(GradientClipBase):
    """Multiply all gradients by clip_norm / max(norm, clip_norm), norm that of all of them together.

    (Pascanu, Mikolov, Bengio, 2013, arXiv:1211.5063.)

    Args:
        clip_norm: the greatest norm.
        group_name: with set_gradient_clip, parameters of one group share a norm.
        need_clip: see GradientClipBase; a gradient that is not clipped does not count in the norm.
    """

    def __init__(
        self,
        clip_norm: float,
        group_name: str = "default_group",
        need_clip: Callable[[Any], bool] | None = None,
    ) -> None:
        super().__init__(need_clip)
        self.clip_norm = float(clip_norm)
        self.group_name = group_name

    def __str__(self) -> str:
        return f"Gradient Clip By GlobalNorm, global_norm={self.clip_norm:f}"

    def _clip(self, params_grads: Pairs) -> Pairs:
        eager: Any = mode.tracer()
        if eager is not None and eager.recorder is None and _plain([g for _, g in params_grads]):
            return self._clip_together(eager, params_grads)
        squares = []
        for param, grad in params_grads:
            with param.block.program._optimized_guard([param, grad]):
                squares.append(self._square_sum(grad))
        param, grad = params_grads[-1]
        with param.block.program._optimized_guard([param, grad]):
            norm = self._norm(squares)
            factor = self._factor(self._limit(norm.dtype), norm)
        return self._scaled(params_grads, factor)

    def _clip_together(self, eager: Any, params_grads: Pairs) -> Pairs:
        """Two operators over all gradients, as passes make of the steps in Programs; below the limit nothing is copied."""
        grads = [g for _, g in params_grads]
        factor, clipped = eager.new_result(grads[0].dtype, True), [eager.new_result(g.dtype, True) for g in grads]
        eager.trace_op("global_norm_factor", {"X": grads}, {"Out": factor}, {"clip_norm": str(self.clip_norm)})
        eager.trace_op("scale_gradients", {"X": grads, "Factor": factor}, {"Out": clipped})
        return [(p, g) for (p, _), g in zip(params_grads, clipped)]

    # The steps, for _GroupClip too.
    @staticmethod
    def _square_sum(grad: Any) -> Any:
        if grad.type is VarType.SELECTED_ROWS:
            grad = append("merge_selected_rows", "merge_selected_rows", {"X": grad}, dtype=grad.dtype)
            grad = append("get_tensor_from_selected_rows", "get_tensor_from_selected_rows", {"X": grad}, dtype=grad.dtype)
        square = append("square", "square", {"X": grad}, dtype=grad.dtype)
        attrs = {"dim": [0], "keep_dim": False, "reduce_all": True}
        return append("reduce_sum", "reduce_sum", {"X": square}, attrs, dtype=grad.dtype)

    @staticmethod
    def _norm(squares: list[Any]) -> Any:
        total = append("sum", "sum", {"X": squares}, {"use_mkldnn": False}, dtype=squares[0].dtype)
        return append("sqrt", "sqrt", {"X": total}, dtype=total.dtype)

    def _limit(self, dtype: Any) -> Any:
        attrs = {"shape": [1], "dtype": dtype, "value": self.clip_norm, "force_cpu": False, "str_value": str(self.clip_norm)}
        return append("fill_constant", "fill_constant", {}, attrs, dtype=dtype, stop_gradient=True)

    @staticmethod
    def _factor(limit: Any, norm: Any) -> Any:
        def both(op_type: str, x: Any, y: Any) -> Any:
            return append(op_type, op_type, {"X": x, "Y": y}, {"axis": -1}, dtype=x.dtype)

        return both("elementwise_div", limit, both("elementwise_max", limit, norm))

    @staticmethod
    def _scaled(params_grads: Pairs, factor: Any) -> Pairs:
        pairs = []
        for param, grad in params_grads:
            with param.block.program._optimized_guard([param, grad]):
                new = append("elementwise_mul", "elementwise_mul", {"X": grad, "Y": factor}, {"axis": -1}, dtype=grad.dtype)
            pairs.append((param, new))
        return pairs


ClipByValue = GradientClipByValue
ClipByNorm = GradientClipByNorm
ClipByGlobalNorm = GradientClipByGlobalNorm


# ---- clips that parameters carry -------------------------------------------------------------------
_FROM_PROGRAM = "_set_by_set_gradient_clip"


def set_gradient_clip(clip: Any, param_list: Any = None, program: Any = None) -> None:
    """Let optimizers without grad_clip clip the gradients of parameters that exist now.

    As in Fluid 1.8.5 a parameter without clip switches clipping off altogether (a warning says so), so `param_list`
    is of use only with other calls for the remaining parameters. ``optimizer(grad_clip=…)`` is the better way.

    Args:
        clip: GradientClipByValue, GradientClipByNorm or GradientClipByGlobalNorm.
        param_list: Parameters or names; all of the Program when None.
        program: the main Program when None.
    """
    if not isinstance(clip, GradientClipBase):
        raise ArgumentError(
            f"set_gradient_clip: clip must be GradientClipByValue, GradientClipByNorm or GradientClipByGlobalNorm, "
            f"received {type(clip).__name__}"
        )
    block = (program if program is not None else default_main_program()).global_block()
    for item in block.all_parameters() if param_list is None else param_list:
        param = block.var(item) if isinstance(item, str) else item
        if not isinstance(param, Parameter):
            raise ArgumentError(f"set_gradient_clip: param_list takes Parameters or their names, received {item!r}")
        param.gradient_clip_attr = copy.copy(clip)
        setattr(param.gradient_clip_attr, _FROM_PROGRAM, True)


def append_gradient_clip_ops(param_grads: Pairs) -> Pairs:
    """Clip each gradient as its parameter says (set_gradient_clip, or Fluid 1.1's ParamAttr(gradient_clip=))."""
    pairs = [(p, g) for p, g in param_grads if g is not None]
    clips = {id(p): getattr(p, "gradient_clip_attr", None) for p, _ in pairs}
    given = [c for c in clips.values() if c is not None]
    for c in given:
        if not isinstance(c, GradientClipBase):
            raise TypeError(f"gradient_clip of a parameter must be a GradientClipBy…, received {type(c).__name__}")
    if not given:
        return param_grads
    if len(given) < len(pairs) and all(getattr(c, _FROM_PROGRAM, False) for c in given):
        without = [p.name for p, _ in pairs if clips[id(p)] is None]
        warnings.warn(
            f"no gradient is clipped: set_gradient_clip left out {', '.join(without[:4])}"
            f"{' …' if len(without) > 4 else ''}, and Fluid 1.8.5 then clips none; use optimizer(grad_clip=…)",
            stacklevel=2,
        )
        return param_grads
    return _clip_by_attribute(param_grads, pairs, clips)


def _clip_by_attribute(param_grads: Pairs, pairs: Pairs, clips: dict[int, Any]) -> Pairs:
    groups: dict[str, _Group] = {}
    for param, grad in pairs:
        c = clips[id(param)]
        if isinstance(c, GradientClipByGlobalNorm) and _needs(c, param):
            with param.block.program._optimized_guard([param, grad]):
                group = groups.get(c.group_name)
                if group is None:
                    group = groups[c.group_name] = _Group(c, c._limit(grad.dtype))
                elif group.clip.clip_norm != c.clip_norm:
                    raise InvalidProgramError(
                        f"GradientClipByGlobalNorm: group {c.group_name!r} has clip_norm {group.clip.clip_norm} and "
                        f"{c.clip_norm} (parameter {param.name}); one group has one clip_norm"
                    )
                group.squares.append(c._square_sum(grad))
    found = []
    for param, grad in param_grads:
        c = clips.get(id(param))
        if grad is None or c is None or not _needs(c, param):
            found.append((param, grad))
        elif isinstance(c, GradientClipByGlobalNorm):
            group = groups[c.group_name]
            if group.factor is None:
                with param.block.program._optimized_guard([param, grad]):
                    group.factor = c._factor(group.limit, c._norm(group.squares))
            found += c._scaled([(param, grad)], group.factor)
        else:
            found.append((param, c._clip_one(param, grad)))
    return found


def _plain(grads: list[Any]) -> bool:
    """Whether eager gradients are dense, of one type, and not to be differentiated again."""
    kind = grads[0].dtype
    return kind in (VarType.FP32, VarType.FP64) and all(
        g.dtype == kind and g.type is VarType.LOD_TENSOR and g.stop_gradient for g in grads
    )


def _needs(clip: GradientClipBase, param: Any) -> bool:
    return clip._need_clip_func is None or clip._need_clip_func(param)


class _Group:
    """Parameters that share one global norm."""

    def __init__(self, clip: GradientClipByGlobalNorm, limit: Any) -> None:
        self.clip = clip
        self.limit = limit
        self.squares: list[Any] = []
        self.factor: Any = None
