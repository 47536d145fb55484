"""``fluid.executor``: the Executor, the scopes it runs in, and what it does with feeds and fetches."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import FeedError, InvalidProgramError
from millstream.ir.operator import Operator
from millstream.ir.types import to_var_type
from millstream.ir.variable import Variable
from millstream.runtime.dataset_run import FetchHandler
from millstream.runtime.executor import Executor
from millstream.runtime.place import Place
from millstream.runtime.scope import Scope, global_scope, scope_guard, switch_scope
from millstream.runtime.tensor import LoDTensor, LoDTensorArray

__all__ = ["Executor", "FetchHandler", "as_numpy", "global_scope", "scope_guard"]

_switch_scope = switch_scope


def as_numpy(tensor: Any) -> Any:
    """A LoDTensor without LoD as an array, None when it is empty; a list of them as a list.

    Raises RuntimeError: there is LoD, which an array can't hold.
    """
    if isinstance(tensor, (LoDTensorArray, list)):
        return [as_numpy(t) for t in tensor]
    if not isinstance(tensor, LoDTensor):
        raise TypeError(f"as_numpy takes a LoDTensor or a list of them, received {type(tensor).__name__}")
    if tensor.lod():
        raise RuntimeError(
            "Some of your fetched tensors hold LoD information. They can not be completely cast to Python ndarray. Please "
            "set the parameter 'return_numpy' as 'False' to return LoDTensor itself directly."
        )
    return tensor.numpy() if tensor._is_initialized() else None


def _fetch_var(name: str, scope: Scope | None = None, return_numpy: bool = True) -> Any:
    """The value of variable `name` of a scope (the global one). InvalidProgramError: it is not there."""
    if not isinstance(name, str):
        raise InvalidProgramError(f"_fetch_var: a variable's name is needed, received {type(name).__name__}")
    found = (global_scope() if scope is None else scope).find_var(name)
    if found is None:
        raise InvalidProgramError(
            f"Cannot find {name} in scope. Perhaps you need to make the variable persistable by using var.persistable = "
            "True in your program."
        )
    tensor = found.get_tensor()
    return as_numpy(tensor) if return_numpy else tensor


def _to_name_str(var: Any) -> str:
    """The name of a variable; an operator's first output, a name itself."""
    if isinstance(var, str):
        return var
    if isinstance(var, Variable):
        return var.name
    if isinstance(var, Operator):
        return var.output_arg_names[0]
    raise TypeError(f"{var} should be Variable, Operator or str")


def _as_lodtensor(data: Any, place: Place, dtype: Any = None) -> LoDTensor:
    """An array, or with `dtype` a number, as a LoDTensor. RuntimeError: a list."""
    if isinstance(data, list):
        raise RuntimeError("some of the feeds are lists of arrays: convert them to LoDTensors (fluid.create_lod_tensor)")
    if not isinstance(data, np.ndarray):
        if dtype is None:
            raise InvalidProgramError("dtype should be given when casting python scalar to tensor")
        data = np.array([data], dtype)
    tensor = LoDTensor()
    tensor.set(data, place)
    return tensor


def dimension_is_compatible_with(first: Any, second: Any) -> bool:
    """Whether two shapes may be one: as many dimensions, each equal or unknown (negative) in one of them."""
    return len(first) == len(second) and all(a < 0 or b < 0 or a == b for a, b in zip(first, second))


def dtype_is_compatible_with(first: Any, second: Any) -> bool:
    """Whether two dtypes, in whatever form, are one."""
    return to_var_type(first) == to_var_type(second)


def check_feed_shape_type(var: Variable, feed: Any, num_places: int = 1) -> bool:
    """True when `feed` may be given for `var`, of which nothing is checked unless ``fluid.data`` made it.

    Raises FeedError (a ValueError): the shape or dtype does not fit.
    """
    if not var.need_check_feed:
        return True
    shape = list(feed.shape() if isinstance(feed, LoDTensor) else feed.shape)
    if num_places > 1 and shape:
        shape[0] //= num_places
    if not dimension_is_compatible_with(shape, var.shape):
        raise FeedError(f"The fed Variable {var.name!r} should have dimensions {list(var.shape)}, but received {shape}")
    dtype = feed.torch().numpy().dtype if isinstance(feed, LoDTensor) else feed.dtype
    if not dtype_is_compatible_with(dtype, var.dtype):
        raise FeedError(f"The data type of fed Variable {var.name!r} must be {var.describe()}, but received {dtype}")
    return True


def _holds(block: Any, op_type: str, slot: str, names: list[str], holder: str) -> bool:
    found = [op for op in block.ops if op.type == op_type]
    for op in found:
        if op.desc.input("X")[0] == holder or op.desc.output("Out")[:1] == [holder]:
            name = (op.output("Out") if slot == "Out" else op.input("X"))[0]
            if name not in names:
                raise InvalidProgramError(
                    f"the Program has a {op_type} operator of {name!r}, which is not among {sorted(names)}"
                )
    if found and len(found) != len(names):
        raise InvalidProgramError(f"the Program has {len(found)} {op_type} operators, for {len(names)} variables")
    return bool(found)


def has_feed_operators(block: Any, feed_targets: dict[str, Any], feed_holder_name: str) -> bool:
    """Whether a Block feeds itself. InvalidProgramError: its feeds are not those of `feed_targets`."""
    return _holds(block, "feed", "Out", list(feed_targets), feed_holder_name)


def has_fetch_operators(block: Any, fetch_targets: list[Any], fetch_holder_name: str) -> bool:
    """Whether a Block fetches itself. InvalidProgramError: its fetches are not `fetch_targets`."""
    return _holds(block, "fetch", "X", [_to_name_str(v) for v in fetch_targets], fetch_holder_name)
