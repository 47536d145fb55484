"""``fluid.dygraph.layers``: Layer, the base of all eager networks."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from millstream.errors import ArgumentError, StateMismatchError
from millstream.files.states import STRUCTURED_NAMES
from millstream.fluid.dygraph import _building
from millstream.fluid.dygraph.layer_object_helper import LayerObjectHelper
from millstream.ir import mode, names
from millstream.ir.types import VarType
from millstream.runtime.eager import ParamBase, VarBase
from millstream.runtime.tensor import LoDTensor

__all__ = ["HookRemoveHelper", "Layer"]

_WORD = re.compile(r"(.)([A-Z][a-z]+)")
_BORDER = re.compile(r"([a-z])([A-Z])")


def _snake_case(name: str) -> str:
    """``MyLSTMNet`` -> ``my_lstm_net``, ``Conv2D`` -> ``conv2d``: saved names depend on it."""
    return _BORDER.sub(r"\1_\2", _WORD.sub(r"\1_\2", name)).lower()


class HookRemoveHelper:
    """What registering a hook returns; remove() takes the hook away."""

    next_hook_id = 0

    def __init__(self, hooks: dict[int, Any]) -> None:
        self._hooks = hooks
        self._hook_id = HookRemoveHelper.next_hook_id
        HookRemoveHelper.next_hook_id += 1

    def remove(self) -> None:
        """Take the hook away."""
        self._hooks.pop(self._hook_id, None)


class Layer:
    """Base of eager networks: parameters and sublayers are what is assigned to attributes; define forward().

    Args:
        name_scope: prefix of the parameters' names; the class name in snake case when None.
        dtype: of the parameters.

    Attributes:
        training: set by train() and eval(); Dropout and BatchNorm look at it.
    """

    training: bool
    _built = False

    def __init__(self, name_scope: str | None = None, dtype: Any = VarType.FP32) -> None:
        prefix = _snake_case(type(self).__name__) if name_scope is None else name_scope
        d = self.__dict__
        d["training"] = True
        d["_full_name"] = names.generate(prefix)
        d["_dtype"] = dtype
        d["_helper"] = LayerObjectHelper(self._full_name)
        d["_parameters"] = OrderedDict()
        d["_sub_layers"] = OrderedDict()
        d["_forward_pre_hooks"] = OrderedDict()
        d["_forward_post_hooks"] = OrderedDict()

    # ---- modes ---------------------------------------------------------------------------------
    def _set_training(self, training: bool) -> None:
        self.training = training
        for layer in self.sublayers():
            layer.training = training

    def train(self) -> None:
        """This layer and all below it train; operators leave a graph for backward() again."""
        tracer: Any = mode.tracer()
        if tracer is not None:
            tracer.train_mode()
        self._set_training(True)

    def eval(self) -> None:
        """This layer and all below it evaluate.

        As in Fluid 1.8 no operator of any layer leaves a graph from now on, until some layer's train().
        """
        tracer: Any = mode.tracer()
        if tracer is not None:
            tracer.eval_mode()
        self._set_training(False)

    # ---- making parts --------------------------------------------------------------------------
    def full_name(self) -> str:
        """Unique name: ``linear_0``."""
        return self._full_name

    def create_parameter(
        self, shape: Any, attr: Any = None, dtype: Any = "float32", is_bias: bool = False, default_initializer: Any = None
    ) -> Any:
        """A parameter of this layer, to be assigned to an attribute; None when `attr` is False."""
        if isinstance(attr, str) and not attr:
            attr = None
        return self._helper.create_parameter(attr, shape, dtype, is_bias, default_initializer)

    def create_variable(
        self, name: str | None = None, persistable: bool | None = None, dtype: Any = None, type: Any = VarType.LOD_TENSOR
    ) -> Any:
        """A variable without a value, named ``<layer>.<name>``."""
        if type is not VarType.LOD_TENSOR:
            raise ArgumentError(f"create_variable: an eager variable is a LOD_TENSOR, received type {type!r}")
        full = f"{self._full_name}.{name}" if name is not None else names.generate(f"{self._full_name}._generated_var")
        return self._helper.create_variable(
            name=full, persistable=bool(persistable), dtype=VarType.FP32 if dtype is None else dtype
        )

    def add_parameter(self, name: str, parameter: Any) -> Any:
        """Register `parameter` (or None) under `name`; returns it."""
        if parameter is not None and not _is_parameter(parameter):
            raise ArgumentError(f"add_parameter: {name!r} must be a Parameter or None, received {type(parameter).__name__}")
        self._parameters[name] = parameter
        return parameter

    def add_sublayer(self, name: str, sublayer: Any) -> Any:
        """Register `sublayer` under `name`; returns it."""
        if not isinstance(sublayer, Layer):
            raise ArgumentError(f"add_sublayer: {name!r} must be a Layer, received {type(sublayer).__name__}")
        self._sub_layers[name] = sublayer
        return sublayer

    # ---- listing parts -------------------------------------------------------------------------
    def parameters(self, include_sublayers: bool = True) -> list[Any]:
        """All parameters, a layer's own before those of its sublayers."""
        if not include_sublayers or type(self).named_parameters is not Layer.named_parameters:
            return [p for _, p in self.named_parameters(include_sublayers=include_sublayers)]
        found: dict[int, Any] = {}
        _collect(self, set(), found)
        return list(found.values())

    def named_parameters(self, prefix: str = "", include_sublayers: bool = True) -> Iterator[tuple[str, Any]]:
        """(structured name, parameter); a shared parameter comes once."""
        seen: set[int] = set()
        owners = (
            self.named_sublayers(prefix=prefix, include_sublayers=True, include_self=True)
            if include_sublayers
            else [(prefix, self)]
        )
        for path, layer in owners:
            for name, param in layer._parameters.items():
                if param is not None and id(param) not in seen:
                    seen.add(id(param))
                    yield (f"{path}.{name}" if path else name), param

    def sublayers(self, include_sublayers: bool = True) -> list[Layer]:
        """All layers below this one (only the direct ones without `include_sublayers`)."""
        return [layer for _, layer in self.named_sublayers(include_sublayers=include_sublayers)]

    def named_sublayers(
        self,
        prefix: str = "",
        include_sublayers: bool = True,
        include_self: bool = False,
        layers_set: set[Any] | None = None,
    ) -> Iterator[tuple[str, Layer]]:
        """(structured name, layer), depth first; a shared layer comes once."""
        seen = set() if layers_set is None else layers_set
        if self in seen:
            return
        if include_self:
            seen.add(self)
            yield prefix, self
        for name, layer in self._sub_layers.items():
            if layer is None or layer in seen:
                continue
            path = f"{prefix}.{name}" if prefix else str(name)
            if include_sublayers:
                yield from layer.named_sublayers(path, True, True, seen)
            else:
                seen.add(layer)
                yield path, layer

    def clear_gradients(self) -> None:
        """Forget the gradients of all trainable parameters."""
        for param in self.parameters():
            if param.trainable:
                param.clear_gradient()

    # ---- state ---------------------------------------------------------------------------------
    def state_dict(
        self, destination: Any = None, include_sublayers: bool = True, structured_name_prefix: str = ""
    ) -> Any:
        """OrderedDict structured name -> parameter, into `destination` if given."""
        found = OrderedDict() if destination is None else destination
        for name, param in self._parameters.items():
            if param is not None:
                found[f"{structured_name_prefix}{name}"] = param
        if include_sublayers:
            for name, layer in self._sub_layers.items():
                if layer is not None:
                    layer.state_dict(found, True, f"{structured_name_prefix}{name}.")
        return found

    def set_dict(self, stat_dict: Any, include_sublayers: bool = True, use_structured_name: bool = True) -> None:
        """Take the values of all parameters from `stat_dict` (name -> array or variable).

        Args:
            use_structured_name: keys are state_dict()'s; else the parameters' own names.

        Raises StateMismatchError: a parameter has no value there, or one of another shape or dtype. Entries that
        belong to no parameter are named in a warning.
        """
        if not isinstance(stat_dict, Mapping):
            raise ArgumentError(f"set_dict takes a dict of name -> array, received {type(stat_dict).__name__}")
        own = self.state_dict(include_sublayers=include_sublayers)
        unused = {k for k in stat_dict if k != STRUCTURED_NAMES}
        for name, param in own.items():
            key = name if use_structured_name else param.name
            if key not in stat_dict:
                raise StateMismatchError(
                    f"set_dict: {self._full_name} has parameter {key!r} of shape {list(param.shape)}, but the state has "
                    f"{', '.join(list(stat_dict)[:6]) or 'nothing'} (use_structured_name is {use_structured_name})"
                )
            _set_checked(param, key, stat_dict[key])
            unused.discard(key)
        if unused:
            warnings.warn(f"set_dict: {self._full_name} has no parameter {', '.join(sorted(unused)[:8])}", stacklevel=2)

    load_dict = set_dict

    # ---- calling -------------------------------------------------------------------------------
    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """What the layer computes; for subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def backward(self, *inputs: Any) -> Any:
        """Gradients come from the operators; a Layer has no backward of its own."""
        raise ValueError(f"{type(self).__name__}: a Layer defines no backward(); call backward() of the loss")

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookRemoveHelper:
        """Call ``hook(layer, inputs)`` before forward(); what it returns, if not None, replaces the inputs."""
        return _register(self._forward_pre_hooks, hook)

    def register_forward_post_hook(self, hook: Callable[..., Any]) -> HookRemoveHelper:
        """Call ``hook(layer, inputs, outputs)`` after forward(); what it returns, if not None, replaces the outputs."""
        return _register(self._forward_post_hooks, hook)

    def _build_once(self, *args: Any, **kwargs: Any) -> None:
        """For subclasses: called with the inputs of the first call, before forward()."""

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        if not self._built:
            if type(self)._build_once is not Layer._build_once:
                self._build_once(*inputs, **kwargs)
            object.__setattr__(self, "_built", True)
        if self._forward_pre_hooks:
            for hook in list(self._forward_pre_hooks.values()):
                changed = hook(self, inputs)
                if changed is not None:
                    inputs = changed if isinstance(changed, tuple) else (changed,)
        forward = self.forward if _building.builder() is None else _building.forward_of(self)
        outputs = forward(*inputs, **kwargs)
        if self._forward_post_hooks:
            for hook in list(self._forward_post_hooks.values()):
                changed = hook(self, inputs, outputs)
                if changed is not None:
                    outputs = changed
        return outputs

    # ---- attributes ----------------------------------------------------------------------------
    def __getattr__(self, name: str) -> Any:
        d = self.__dict__
        if name in d.get("_parameters", ()):
            found = d["_parameters"][name]
            return found if _building.builder() is None else _building.parameter(found)
        if name in d.get("_sub_layers", ()):
            return d["_sub_layers"][name]
        hint = "" if "_parameters" in d else f"; call super().__init__() first in {type(self).__name__}.__init__"
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
            return
        d = self.__dict__
        for kind, registered, wanted in (
            (_is_parameter, "_parameters", "Parameter"),
            (lambda v: isinstance(v, Layer), "_sub_layers", "Layer"),
        ):
            if kind(value):
                if registered not in d:
                    raise ValueError(f"{type(self).__name__}: call super().__init__() before assigning to {name!r}")
                for other in (d, d["_parameters"], d["_sub_layers"]):
                    if other is not d[registered]:
                        other.pop(name, None)
                d[registered][name] = value
                return
            if name in d.get(registered, ()):
                if value is not None:
                    raise TypeError(
                        f"{type(self).__name__}.{name} is a {wanted}: only a {wanted} or None can be assigned to it, "
                        f"received {type(value).__name__}"
                    )
                d[registered][name] = None
                return
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for registered in (self._parameters, self._sub_layers):
            if name in registered:
                del registered[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *map(str, self._parameters), *map(str, self._sub_layers)})


def _collect(layer: Layer, seen: set[Any], found: dict[int, Any]) -> None:
    """The parameters of a layer and all below it, by identity, in the order of named_parameters()."""
    seen.add(layer)
    for param in layer._parameters.values():
        if param is not None:
            found.setdefault(id(param), param)
    for sub in layer._sub_layers.values():
        if sub is not None and sub not in seen:
            _collect(sub, seen, found)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, ParamBase)


def _register(hooks: dict[int, Any], hook: Callable[..., Any]) -> HookRemoveHelper:
    if not callable(hook):
        raise TypeError(f"a forward hook must be callable, received {type(hook).__name__}")
    helper = HookRemoveHelper(hooks)
    hooks[helper._hook_id] = hook
    return helper


def _set_checked(param: VarBase, key: str, value: Any) -> None:
    new = value.numpy() if isinstance(value, VarBase) else np.asarray(value) if isinstance(value, LoDTensor) else value
    array = np.asarray(new)
    mine = param.numpy()
    if array.shape != mine.shape or array.dtype != mine.dtype:
        raise StateMismatchError(
            f"set_dict: {key!r} ({param.name}) expects {mine.dtype}{list(mine.shape)}, the state has "
            f"{array.dtype}{list(array.shape)}"
        )
    param.set_value(array)
