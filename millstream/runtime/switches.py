"""Objects whose attributes are switches, with a fixed name and kind each."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["Switches"]

# what may be written to a switch whose first value has this class
_ACCEPTED: dict[type, tuple[type, ...]] = {
    bool: (bool, int, float, type(None)),
    int: (int,),
    str: (str,),
    list: (list, tuple, str),
    set: (set, frozenset),
}


class Switches:
    """What a subclass's ``__init__`` sets are its switches.

    Afterwards a misspelt one is an AttributeError, a value of another kind a TypeError. None as the first value: a bool
    that is not decided yet.
    """

    def __init_subclass__(cls) -> None:
        fill = cls.__init__

        @functools.wraps(fill)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            fill(self, *args, **kwargs)
            self.__dict__["_first"] = dict(self.__dict__)

        cls.__init__ = __init__  # type: ignore[method-assign]

    def __setattr__(self, name: str, value: Any) -> None:
        switches = self.__dict__.get("_first")
        if switches is not None:
            value = self._checked(switches, name, value)
        object.__setattr__(self, name, value)

    def _checked(self, switches: dict[str, Any], name: str, value: Any) -> Any:
        who = type(self).__name__
        if name not in switches:
            raise AttributeError(f"{who} has no switch {name!r}; it has {', '.join(sorted(switches))}")
        first = switches[name]
        accepted = (bool, type(None)) if first is None else _ACCEPTED.get(type(first), (type(first),))
        if not isinstance(value, accepted):
            raise TypeError(
                f"{who}.{name} must be of kind {accepted[0].__name__}, received {type(value).__name__}: {value!r}"
            )
        return bool(value) if isinstance(first, bool) else value
