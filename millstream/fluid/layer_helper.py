"""LayerHelper: what every layer function does the same way — names, parameters, operators, bias, activation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.initializer import Constant, Xavier
from millstream.fluid.param_attr import ParamAttr, WeightNormParamAttr
from millstream.ir import mode, names
from millstream.ir.printer import brief
from millstream.ir.program import Program, default_main_program, default_startup_program
from millstream.ir.types import FLOATING, VarType, to_var_type
from millstream.ir.variable import Parameter, Variable

__all__ = ["LayerHelper", "LayerHelperBase"]


class LayerHelper:
    """Names and builds one layer.

    Args:
        layer_type: prefix of generated names (``fc`` -> ``fc_0``).
        **kwargs: the layer function's own arguments (``locals()``): `name`, `param_attr`, `bias_attr`, `act`,
            `input`, … are read from here.
    """

    def __init__(self, layer_type: str, **kwargs: Any) -> None:
        self.kwargs = kwargs
        self.layer_type = layer_type
        self._name = kwargs.get("name")
        if self._name is None and mode.tracer() is None:
            kwargs["name"] = self.name

    @property
    def name(self) -> str:
        """The layer's name. In eager mode a number is taken at the first use: most operators need no name."""
        if self._name is None:
            self._name = names.generate(self.layer_type)
        return self._name

    # ---- programs ------------------------------------------------------------------------------
    @property
    def main_program(self) -> Program:
        return default_main_program()

    @property
    def startup_program(self) -> Program:
        return default_startup_program()

    def append_op(
        self, type: str, inputs: Any = None, outputs: Any = None, attrs: Any = None, stop_gradient: bool = False
    ) -> Any:
        """Append to the current Block of the main Program (see Block.append_op), or run at once in eager mode."""
        eager: Any = mode.tracer()
        if eager is not None:
            return eager.trace_op(type, inputs or {}, outputs or {}, attrs, stop_gradient)
        capture = mode.capture()
        if capture is not None:
            inputs, outputs = capture(inputs), capture(outputs)
        return self.main_program.current_block().append_op(type, inputs, outputs, attrs, stop_gradient)

    # ---- inputs --------------------------------------------------------------------------------
    def multiple_input(self, input_param_name: str = "input") -> list[Variable]:
        """The argument `input_param_name` as a list of Variables."""
        value = self.kwargs.get(input_param_name, [])
        found = list(value) if isinstance(value, (list, tuple)) else [value]
        for item in found:
            self._check_variable(item, input_param_name)
        return found

    def input(self, input_param_name: str = "input") -> Variable:
        """The argument `input_param_name`, which must be one Variable."""
        found = self.multiple_input(input_param_name)
        if len(found) != 1:
            raise InvalidProgramError(f"{self.layer_type}: {input_param_name} must be one Variable, received {len(found)}")
        return found[0]

    def _check_variable(self, value: Any, what: str) -> None:
        if not isinstance(value, Variable) and not hasattr(value, "_ivar"):
            raise TypeError(
                f"The type of '{what}' in {self.layer_type} must be Variable, but received {type(value).__name__}: "
                f"{brief(value)}"
            )

    @property
    def param_attr(self) -> Any:
        return ParamAttr._to_attr(self.kwargs.get("param_attr"))

    @property
    def bias_attr(self) -> Any:
        return ParamAttr._to_attr(self.kwargs.get("bias_attr"))

    def multiple_param_attr(self, length: int) -> list[ParamAttr]:
        """One ParamAttr per input; a single one is copied."""
        attr = self.param_attr
        if isinstance(attr, ParamAttr):
            attr = [attr]
        if attr is False:
            raise TypeError(f"{self.layer_type}: param_attr=False is not possible: the layer needs its weight")
        if len(attr) != 1 and len(attr) != length:
            raise InvalidProgramError(f"{self.layer_type}: {len(attr)} parameter attributes for {length} inputs")
        if len(attr) == 1 and length != 1:
            attr = [attr[0]] + [copy.copy(attr[0]) for _ in range(length - 1)]
        return list(attr)

    def iter_inputs_and_params(self, input_param_name: str = "input") -> Iterator[tuple[Variable, ParamAttr]]:
        inputs = self.multiple_input(input_param_name)
        yield from zip(inputs, self.multiple_param_attr(len(inputs)))

    def input_dtype(self, input_param_name: str = "input") -> VarType:
        """The one dtype of all inputs."""
        dtype = None
        for var in self.multiple_input(input_param_name):
            if dtype is None:
                dtype = var.dtype
            elif dtype != var.dtype:
                raise InvalidProgramError(
                    f"{self.layer_type}: inputs must have one data type, received {dtype.name} and {var.describe()}"
                )
        return dtype if dtype is not None else VarType.FP32

    # ---- variables -----------------------------------------------------------------------------
    def create_variable_for_type_inference(self, dtype: Any, stop_gradient: bool = False) -> Variable:
        """A temporary ``<layer>_<n>.tmp_<k>``; its shape comes from inference."""
        eager = mode.tracer()
        if eager is not None:
            return eager.new_result(dtype, stop_gradient)
        return self.main_program.current_block().create_var(
            name=names.generate(self.name + ".tmp"), dtype=dtype, persistable=False, stop_gradient=stop_gradient
        )

    create_tmp_variable = create_variable_for_type_inference

    def create_variable(self, *args: Any, **kwargs: Any) -> Variable:
        """A variable of the current Block."""
        eager = mode.tracer()
        if eager is not None:
            return eager.new_variable(kwargs.pop("name", None), kwargs.pop("dtype", None), **kwargs)
        return self.main_program.current_block().create_var(*args, **kwargs)

    def create_global_variable(self, persistable: bool = False, *args: Any, **kwargs: Any) -> Variable:
        """A variable of the global Block without gradient."""
        kwargs.setdefault("name", None)
        if kwargs["name"] is None:
            kwargs["name"] = names.generate("_generated_var")
        eager = mode.tracer()
        if eager is not None:
            kept = {k: kwargs[k] for k in ("name", "dtype", "shape") if k in kwargs}
            return eager.new_variable(**({"dtype": None} | kept), persistable=persistable, stop_gradient=True)
        return self.main_program.global_block().create_var(*args, persistable=persistable, stop_gradient=True, **kwargs)

    def create_or_get_global_variable(self, name: str, *args: Any, **kwargs: Any) -> tuple[Variable, bool]:
        """(variable, whether it is new)."""
        block = self.main_program.global_block()
        if block.has_var(name):
            return block.var(name), False
        return self.create_global_variable(name=name, *args, **kwargs), True  # noqa: B026

    def set_variable_initializer(self, var: Variable, initializer: Any) -> Variable:
        """Declare `var` in the startup Program and initialise it there (at once in eager mode)."""
        eager = mode.tracer()
        if eager is not None:
            eager.initialize(var, initializer)
            return var
        return self.startup_program.global_block().create_var(
            name=var.name,
            type=var.type,
            dtype=var.dtype,
            shape=var.shape,
            persistable=True,
            initializer=initializer,
        )

    def get_parameter(self, name: str) -> Parameter:
        """The Parameter `name` of the main Program (in eager mode: the one made last with this name)."""
        eager: Any = mode.tracer()
        if eager is not None:
            return eager.parameter(name)
        param = self.main_program.global_block().var(name)
        if not isinstance(param, Parameter):
            raise ValueError(f"{self.layer_type}: {name!r} is not a Parameter but a plain variable")
        return param

    # ---- parameters ----------------------------------------------------------------------------
    def create_parameter(
        self,
        attr: Any,
        shape: Any,
        dtype: Any = None,
        is_bias: bool = False,
        default_initializer: Any = None,
        stop_gradient: bool = False,
        type: VarType = VarType.LOD_TENSOR,
    ) -> Parameter | None:
        """A parameter named by `attr`, or ``<layer>_<n>.w_<k>`` (``.b_<k>`` for a bias), initialised in the startup Program.

        Returns None when `attr` is False.
        """
        if attr is False:
            return None
        attr = copy.copy(ParamAttr._to_attr(attr))
        dtype = to_var_type(dtype) if dtype is not None else VarType.FP32
        if attr.initializer is None:
            attr.initializer = default_initializer or self._default_initializer(dtype, is_bias)
        if isinstance(attr, WeightNormParamAttr) and attr.dim is not None:
            attr.dim = attr.dim % len(shape)
        if attr.name is None:
            attr.name = names.generate(f"{self.name}.{'b' if is_bias else 'w'}")
        if isinstance(attr, WeightNormParamAttr):
            from millstream.fluid.weight_norm import create_weight_normalized

            return create_weight_normalized(self, attr, shape, dtype)
        return self._declare_parameter(attr, shape, dtype, stop_gradient, type)

    def _declare_parameter(self, attr: ParamAttr, shape: Any, dtype: Any, stop_gradient: bool, type: VarType) -> Parameter:
        shape = [int(d) for d in shape]
        kwargs = attr._to_kwargs()
        eager = mode.tracer()
        if eager is not None:
            name = kwargs.pop("name")
            seed = default_startup_program().random_seed
            return eager.create_parameter(
                name, shape, dtype, attr.initializer, stop_gradient=stop_gradient, seed=seed, **kwargs
            )
        param = self.main_program.global_block().create_parameter(
            dtype=dtype, shape=shape, type=type, stop_gradient=stop_gradient, **kwargs
        )
        startup = self.startup_program.global_block()
        made = attr.name in startup.vars and any(attr.name in op.output_arg_names for op in startup.ops)
        twin = startup.create_parameter(dtype=dtype, shape=shape, type=type, **kwargs)
        if not made:
            attr.initializer(twin, startup)
        return param

    def _default_initializer(self, dtype: VarType, is_bias: bool) -> Any:
        if dtype not in FLOATING:
            raise TypeError(
                f"{self.layer_type}: a parameter of type {dtype.name} has no default initializer; "
                "give ParamAttr(initializer=…)"
            )
        return Constant(0.0) if is_bias else Xavier()

    # ---- bias and activation -------------------------------------------------------------------
    def append_bias_op(self, input_var: Variable, dim_start: int = 1, dim_end: int | None = None) -> Variable:
        """Add a bias over dimensions [dim_start, dim_end) of `input_var` (nothing when bias_attr is False)."""
        size = list(input_var.shape[dim_start:dim_end])
        attr = self.bias_attr
        if not attr:
            return input_var
        bias = self.create_parameter(attr=attr, shape=size, dtype=input_var.dtype, is_bias=True)
        out = self.create_variable_for_type_inference(dtype=input_var.dtype)
        self.append_op(
            type="elementwise_add", inputs={"X": [input_var], "Y": [bias]}, outputs={"Out": [out]}, attrs={"axis": dim_start}
        )
        return out

    def append_activation(self, input_var: Variable) -> Variable:
        """Apply the layer's `act`: a name, or a dict with `type` and its attributes."""
        act = self.kwargs.get("act")
        if act is None:
            return input_var
        if isinstance(act, str):
            act = {"type": act}
        elif not isinstance(act, dict):
            raise TypeError(f"{self.layer_type}: act must be a name or a dict, received {act!r}")
        act = dict(act)
        if self.kwargs.get("use_cudnn"):
            act["use_cudnn"] = True
        kind = act.pop("type")
        out = self.create_variable_for_type_inference(dtype=input_var.dtype)
        self.append_op(type=kind, inputs={"X": [input_var]}, outputs={"Out": [out]}, attrs=act)
        return out

    def is_instance(self, param_name: str, cls: type) -> None:
        """TypeError unless the argument `param_name` is an instance of `cls`."""
        value = self.kwargs.get(param_name)
        if not isinstance(value, cls):
            raise TypeError(f"{self.layer_type}: {param_name} must be {cls.__name__}, received {type(value).__name__}")


LayerHelperBase = LayerHelper
