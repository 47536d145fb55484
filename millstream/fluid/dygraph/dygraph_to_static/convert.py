"""What converted code calls: Python's control flow for Python conditions, operators for Variables."""

from __future__ import annotations

import builtins
import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid import layers
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers.control_flow import _branch_outputs, while_loop
from millstream.ir.types import VarType
from millstream.ir.variable import Variable


class Undefined:
    """The value of a name that has none; using it is an error."""

    def __init__(self, name: str, why: str = "it has no value here") -> None:
        self._name, self._why = name, why

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise UnboundLocalError(f"variable {self._name!r} is used, but {self._why}")

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return self._fail()

    __call__ = __getitem__ = __bool__ = __iter__ = __len__ = __add__ = __radd__ = __sub__ = __rsub__ = _fail
    __mul__ = __rmul__ = __truediv__ = __neg__ = __lt__ = __gt__ = __le__ = __ge__ = _fail


def pick(scope: dict[str, Any], names: tuple[str, ...]) -> list[Any]:
    """The present values of `names`."""
    return [scope[n] if n in scope else Undefined(n) for n in names]


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float))


def _as_variable(value: Any) -> Any:
    """A number as a Variable of shape [1]."""
    if isinstance(value, bool):
        return layers.fill_constant([1], "bool", value)
    if isinstance(value, int):
        return layers.fill_constant([1], "int64", value)
    return layers.fill_constant([1], "float32", value)


def _condition(value: Variable) -> Variable:
    """A Variable as a bool one."""
    return value if value.dtype is VarType.BOOL else layers.cast(value, "bool")


# ---- if ----------------------------------------------------------------------------------------
def if_(test: Any, true_fn: Any, false_fn: Any, values: list[Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    """An if statement; the branches take and return the values of `names`."""
    if not isinstance(test, Variable):
        return (true_fn if test else false_fn)(*values)
    found: list[list[Any]] = []
    made: list[list[Any]] = []
    helper = LayerHelper("cond")
    test = _condition(test)
    for pred, branch in ((test, true_fn), (layers.logical_not(test), false_fn)):

        def run(branch: Any = branch) -> list[Any]:
            results = list(branch(*values))
            found.append(results)
            return [
                _as_variable(r) if _is_number(r) else r
                for r, v in zip(results, values)
                if _is_number(r) or (isinstance(r, Variable) and r is not v)
            ]

        outs = iter(_branch_outputs(helper, pred, run) or [])
        made.append(
            [
                next(outs) if _is_number(r) or (isinstance(r, Variable) and r is not v) else r
                for r, v in zip(found[-1], values)
            ]
        )
    mask = layers.cast(test, "int32")
    rows = zip(names, values, found[0], found[1], made[0], made[1])
    return tuple(_merge(name, value, t, f, mt, mf, mask) for name, value, t, f, mt, mf in rows)


def _merge(name: str, value: Any, true: Any, false: Any, true_var: Any, false_var: Any, mask: Any) -> Any:
    if true is false or (_is_number(true) and _is_number(false) and type(true) is type(false) and true == false):
        return true
    if isinstance(true, Undefined) or isinstance(false, Undefined):
        return Undefined(name, "only one branch of an if on a Variable gives it a value")
    if isinstance(true_var, Variable) and isinstance(false_var, Variable):
        if true_var.dtype != false_var.dtype:
            if not (_is_number(true) or _is_number(false)):
                raise TypeError(
                    f"if: {name!r} is {true_var.describe()} in one branch and {false_var.describe()} in the other; "
                    "the dtypes must agree"
                )
            if _is_number(true):
                true_var = layers.cast(true_var, false_var.dtype)
            else:
                false_var = layers.cast(false_var, true_var.dtype)
        return layers.select_input([false_var, true_var], mask)
    raise TypeError(
        f"if: {name!r} becomes {type(true).__name__} in one branch and {type(false).__name__} in the other; after an if on "
        "a Variable only Variables and numbers can differ"
    )


def returning_if(test: Any, true_fn: Any, false_fn: Any, values: list[Any]) -> Any:
    """An if statement whose branches both end in return; they take the values of the function's names."""
    if not isinstance(test, Variable):
        return (true_fn if test else false_fn)(*values)
    return layers.cond(_condition(test), lambda: finished(true_fn(*values)), lambda: finished(false_fn(*values)))


def finished(value: Any) -> Any:
    """A returned value; UnboundLocalError when it is a name without value."""
    if isinstance(value, Undefined):
        value._fail()
    return value


def if_expression(test: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """``a if test else b``."""
    nothing = [Undefined("value of a conditional expression")]
    return if_(test, lambda _: (true_fn(),), lambda _: (false_fn(),), nothing, ("value",))[0]


# ---- loops -------------------------------------------------------------------------------------
def while_(cond: Any, body: Any, values: list[Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    """A while statement; cond and body take the values of `names`, body returns them."""
    test = cond(*values)
    while not isinstance(test, Variable):
        if not test:
            return tuple(values)
        values = list(body(*values))
        test = cond(*values)
    return _static_while(cond, body, values, names)


def _static_while(cond: Any, body: Any, values: list[Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    carried = [i for i, v in enumerate(values) if isinstance(v, Variable) or _is_number(v)]
    start = [_as_variable(values[i]) if _is_number(values[i]) else layers.assign(values[i]) for i in carried]
    for var, i in zip(start, carried):
        if isinstance(values[i], Variable):
            var.stop_gradient = values[i].stop_gradient

    def spread(variables: tuple[Any, ...]) -> list[Any]:
        full = list(values)
        for i, var in zip(carried, variables):
            full[i] = var
        return full

    def test(*variables: Any) -> Any:
        return _condition(cond(*spread(variables)))

    def step(*variables: Any) -> list[Any]:
        before = spread(variables)
        after = body(*before)
        for name, old, new in zip(names, before, after):
            if not isinstance(old, (Variable, Undefined)) and new is not old:
                raise TypeError(
                    f"while: {name!r} is a {type(old).__name__} that the loop changes; in a loop on a Variable only "
                    "Variables and numbers can change"
                )
        return [_like(names[i], after[i], before[i]) for i in carried]

    done = iter(while_loop(test, step, start))
    lost = "it gets its value inside a loop on a Variable; give it one before the loop"
    return tuple(
        next(done) if i in carried else Undefined(names[i], lost) if isinstance(v, Undefined) else v
        for i, v in enumerate(values)
    )


def _like(name: str, new: Any, old: Variable) -> Any:
    if _is_number(new):
        new = _as_variable(new)
    if not isinstance(new, Variable):
        raise TypeError(f"while: {name!r} was {old.describe()} and becomes {type(new).__name__}")
    return new if new.dtype == old.dtype else layers.cast(new, old.dtype)


class _Range:
    """range() with a Variable among its arguments."""

    def __init__(self, *args: Any) -> None:
        self.start, self.stop, self.step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        if not isinstance(self.step, int) or self.step == 0:
            raise InvalidProgramError("for: the step of range() must be an int other than 0 when its ends are Variables")


def for_(iterable: Any, body: Any, values: list[Any], names: tuple[str, ...], stop: int | None) -> tuple[Any, ...]:
    """A for statement.

    Args:
        body: (item, *values) -> values.
        stop: which of `names` says that a break was met, or None.
    """
    if isinstance(iterable, Variable):
        size = iterable.shape[0] if len(iterable.shape) else -1
        if size >= 0:
            iterable = [iterable[i] for i in range(size)]  # type: ignore[index]
        else:
            source = iterable
            count = _Range(layers.cast(layers.slice(layers.shape(source), [0], [0], [1]), "int64"))
            return _static_for(count, lambda i, *v: body(item_at(source, i), *v), values, names, stop)
    if isinstance(iterable, _Range):
        return _static_for(iterable, body, values, names, stop)
    for item in iterable:
        values = list(body(item, *values))
        if stop is not None and not isinstance(values[stop], Variable) and values[stop]:
            break
    return tuple(values)


def _static_for(over: _Range, body: Any, values: list[Any], names: tuple[str, ...], stop: int | None) -> tuple[Any, ...]:
    def cond(i: Any, *now: Any) -> Any:
        more = i < over.stop if over.step > 0 else i > over.stop
        return more if stop is None else and_(lambda: more, lambda: not_(now[stop]))

    def step(i: Any, *now: Any) -> tuple[Any, ...]:
        done = body(i, *now)
        return (i + over.step, *done)

    start = over.start if isinstance(over.start, Variable) else _as_variable(over.start)
    return while_(cond, step, [start, *values], ("loop counter", *names))[1:]


def item_at(value: Any, index: Any) -> Any:
    """value[index]."""
    return value[index]


# ---- expressions -------------------------------------------------------------------------------
def and_(*parts: Callable[[], Any]) -> Any:
    """``a and b …``, evaluated from the left as far as Python values decide."""
    value: Any = True
    for part in parts:
        if not isinstance(value, Variable):
            if not value:
                return value
            value = part()
        else:
            other = part()
            other = other if isinstance(other, Variable) else _as_variable(bool(other))
            value = layers.logical_and(_condition(value), _condition(other))
    return value


def or_(*parts: Callable[[], Any]) -> Any:
    """``a or b …``, evaluated from the left as far as Python values decide."""
    value: Any = False
    for part in parts:
        if not isinstance(value, Variable):
            if value:
                return value
            value = part()
        else:
            other = part()
            other = other if isinstance(other, Variable) else _as_variable(bool(other))
            value = layers.logical_or(_condition(value), _condition(other))
    return value


def not_(value: Any) -> Any:
    """``not value``."""
    return layers.logical_not(_condition(value)) if isinstance(value, Variable) else not value


def plain(value: Any, what: str) -> Any:
    """A condition that must be a Python value, because of what stands in the statement."""
    if isinstance(value, Variable):
        raise InvalidProgramError(
            f"{what} can't depend on the Variable {value.describe()} in a function made into a Program"
        )
    return value


def _length(value: Any) -> Any:
    if not isinstance(value, Variable):
        return len(value)
    if value.shape[0] >= 0:
        return value.shape[0]
    return layers.slice(layers.shape(value), [0], [0], [1])


def _number(kind: str) -> Callable[..., Any]:
    def of(*args: Any) -> Any:
        if args and isinstance(args[0], Variable):
            return layers.cast(args[0], {"int": "int64", "float": "float32", "bool": "bool"}[kind])
        return getattr(builtins, kind)(*args)

    return of


def _range(*args: Any) -> Any:
    return _Range(*args) if any(isinstance(a, Variable) for a in args) else range(*args)


def _print(*args: Any, **kwargs: Any) -> None:
    for value in args:
        if isinstance(value, Variable):
            layers.Print(value)
    if not any(isinstance(a, Variable) for a in args):
        print(*args, **kwargs)


_BUILTINS: dict[Any, Callable[..., Any]] = {
    len: _length, range: _range, print: _print, int: _number("int"), float: _number("float"), bool: _number("bool"),
}  # fmt: skip
_OURS = __name__.split(".")[0]
_LIBRARY = frozenset(sys.stdlib_module_names) | {_OURS, "numpy", "torch", "paddle"}


def call(function: Any) -> Any:
    """The form of a callee that can be recorded: user functions converted, some builtins replaced, the rest as it is."""
    from millstream.fluid.dygraph.dygraph_to_static.program_translator import StaticFunction
    from millstream.fluid.dygraph.dygraph_to_static.transform import converted

    if isinstance(function, StaticFunction):
        function = function.function
    if isinstance(function, (types.BuiltinFunctionType, type)):
        return _BUILTINS.get(function, function)
    plain_function = function.__func__ if isinstance(function, types.MethodType) else function
    if not isinstance(plain_function, types.FunctionType):
        return function
    root = (plain_function.__module__ or "").partition(".")[0]
    if root in _LIBRARY or inspect.isgeneratorfunction(plain_function):
        return function
    if hasattr(plain_function, "__wrapped__"):  # a decorator stands before it
        return function
    try:
        changed = converted(plain_function)
    except (OSError, SyntaxError, TypeError):  # no source text: only its conditions on Variables would be refused
        return function
    return functools.partial(changed, function.__self__) if isinstance(function, types.MethodType) else changed
