"""Unique names: ``fc`` -> ``fc_0``, ``fc_1``, … exactly as Fluid counts them; saved models depend on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

GRAD_SUFFIX = "@GRAD"
EMPTY_VAR = "@EMPTY@"
TEMP_VAR = "@TEMP@"


def grad_name(name: str) -> str:
    """The name of the gradient of variable `name`."""
    return name + GRAD_SUFFIX


def strip_grad(name: str) -> str:
    """The variable whose gradient (or renamed partial gradient) `name` is."""
    pos = name.rfind(GRAD_SUFFIX)
    return name if pos < 0 else name[:pos]


def forward_name(name: str) -> str:
    """Like :func:`strip_grad`, and without the ``grad/grad/`` that a later pass of gradients puts before the name."""
    name = strip_grad(name)
    while name.startswith("grad/"):
        name = name[len("grad/") :]
    return name


class UniqueNameGenerator:
    """Counts the uses of each key; an optional prefix goes before every name."""

    def __init__(self, prefix: str | None = None) -> None:
        self.ids: defaultdict[str, int] = defaultdict(int)
        self.prefix = prefix or ""

    def __call__(self, key: str) -> str:
        n = self.ids[key]
        self.ids[key] = n + 1
        return f"{self.prefix}{key}_{n}"


class _State:
    generator = UniqueNameGenerator()


def generate(key: str) -> str:
    """A new name ``key_N``."""
    return _State.generator(key)


def switch(new_generator: UniqueNameGenerator | None = None) -> UniqueNameGenerator:
    """Install a generator (a fresh one by default) and return the old."""
    old = _State.generator
    _State.generator = new_generator if new_generator is not None else UniqueNameGenerator()
    return old


@contextmanager
def guard(new_generator: UniqueNameGenerator | str | bytes | None = None) -> Iterator[None]:
    """Use a fresh generator (or one with the given prefix) inside the ``with`` block."""
    if isinstance(new_generator, bytes):
        new_generator = new_generator.decode()
    if isinstance(new_generator, str):
        new_generator = UniqueNameGenerator(new_generator)
    old = switch(new_generator)
    try:
        yield
    finally:
        switch(old)
