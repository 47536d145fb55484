"""Parameters of the form w = g * v / ||v|| (Salimans and Kingma, 2016, arXiv:1602.07868)."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from millstream.errors import NotSupportedError
from millstream.ir import mode, names

if TYPE_CHECKING:
    from millstream.fluid.layer_helper import LayerHelper
    from millstream.fluid.param_attr import WeightNormParamAttr


def create_weight_normalized(helper: LayerHelper, attr: WeightNormParamAttr, shape: Any, dtype: Any) -> Any:
    """w of `shape`: Parameters ``<name>_g`` (one norm for each index of `attr.dim`) and ``<name>_v``, joined by operators.

    The startup Program initialises v by the initializer of `attr`, and g with v's norms, so that w begins as v.

    Raises NotSupportedError: in dygraph mode.
    """
    from millstream.fluid.layers.nn import elementwise_div, elementwise_mul, reshape

    if mode.tracer() is not None:
        raise NotSupportedError(
            f"{helper.layer_type}: WeightNormParamAttr joins two parameters while a Program is built; in dygraph mode keep "
            "g and v in a Layer of your own and compute g * v / ||v|| in its forward"
        )
    shape = [int(d) for d in shape]
    dim = attr.dim
    parts = {}
    for part, part_shape in (("g", [n if i == dim else 1 for i, n in enumerate(shape)]), ("v", shape)):
        kwargs = copy.copy(attr)._to_kwargs()
        kwargs["name"] = f"{attr.name}_{part}"
        for program in (helper.startup_program, helper.main_program):
            parts[part, program is helper.main_program] = program.global_block().create_parameter(
                dtype=dtype, shape=part_shape, **kwargs
            )
    startup = helper.startup_program.global_block()
    g, v = parts["g", False], parts["v", False]
    attr.initializer(v, startup)
    _Norm(helper, startup).of(v, dim, out=g)
    startup.append_op(type="reshape", inputs={"X": g}, outputs={"Out": g}, attrs={"shape": list(g.shape)})

    g, v = parts["g", True], parts["v", True]
    scale = elementwise_div(g, _Norm(helper, helper.main_program.current_block()).of(v, dim))
    if dim is None:
        return elementwise_mul(v, scale)
    return elementwise_mul(v, reshape(scale, shape=[shape[dim]]), axis=dim)


class _Norm:
    """Appends the operators of a norm over all dimensions but one to a Block."""

    def __init__(self, helper: LayerHelper, block: Any) -> None:
        self.helper = helper
        self.block = block

    def of(self, x: Any, dim: int | None, out: Any = None) -> Any:
        """||x||, of the shape of x with 1 for every dimension but `dim`."""
        out = self._new("norm", x) if out is None else out
        rank = len(x.shape)
        if dim is None:
            return self._root(x, out, dim=[0], reduce_all=True)
        if dim == 0:
            flat = self._append("reshape", x, self._new("reshape", x), shape=[x.shape[0], -1])
            return self._append("reshape", self._root(flat, None, dim=[1]), out, shape=_only(x, dim))
        if dim == rank - 1:
            flat = self._append("reshape", x, self._new("reshape", x), shape=[-1, x.shape[dim]])
            return self._append("reshape", self._root(flat, None, dim=[0]), out, shape=_only(x, dim))
        order = [dim if i == 0 else 0 if i == dim else i for i in range(rank)]
        turned = self._append("transpose", x, self._new("transpose", x), axis=order)
        flat = self._append("reshape", turned, self._new("reshape", x), shape=[x.shape[dim], -1])
        norm = self._root(flat, None, dim=[1])
        spread = self._append("reshape", norm, self._new("reshape", x), shape=[x.shape[dim], *[1] * (rank - 1)])
        return self._append("transpose", spread, out, axis=order)

    def _root(self, x: Any, out: Any, dim: list[int], reduce_all: bool = False) -> Any:
        positive = self._append("abs", x, self._new("abs", x))
        square = self._append("pow", positive, self._new("pow", x), factor=2.0)
        total = self._append("reduce_sum", square, self._new("sum", x), dim=dim, reduce_all=reduce_all, keep_dim=False)
        return self._append("pow", total, self._new("norm", x) if out is None else out, factor=0.5)

    def _new(self, what: str, like: Any) -> Any:
        name = names.generate(f"{self.helper.name}.weight_norm_{what}")
        return self.block.create_var(name=name, dtype=like.dtype, persistable=False)

    def _append(self, op_type: str, x: Any, out: Any, **attrs: Any) -> Any:
        self.block.append_op(type=op_type, inputs={"X": x}, outputs={"Out": out}, attrs=attrs)
        return out


def _only(x: Any, dim: int) -> list[int]:
    return [n if i == dim else 1 for i, n in enumerate(x.shape)]
