"""Word dictionaries as the text datasets return them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["WordDict", "by_frequency"]


class WordDict(dict):  # type: ignore[type-arg]
    """word -> id, with byte strings as keys as in Fluid on Python 3.

    Looking up a text string finds the byte string of its UTF-8 form and the other way round,
    so that both ``d[b"film"]`` and ``d["film"]`` work. Marks such as ``"<unk>"`` are text keys.
    """

    @staticmethod
    def _other(key: Any) -> Any:
        if isinstance(key, str):
            return key.encode()
        if isinstance(key, bytes):
            return key.decode("utf-8", "surrogateescape")
        return key

    def __missing__(self, key: Any) -> Any:
        other = self._other(key)
        if dict.__contains__(self, other):
            return dict.__getitem__(self, other)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or dict.__contains__(self, self._other(key))

    def get(self, key: Any, default: Any = None) -> Any:
        """The id of `key` in either form, else `default`."""
        try:
            return self[key]
        except KeyError:
            return default


def by_frequency(counts: Mapping[Any, int], more_than: int) -> Iterable[Any]:
    """Words counted more than `more_than` times: most frequent first, ties by their bytes."""
    kept = [(word, count) for word, count in counts.items() if count > more_than]

    def rank(entry: tuple[Any, int]) -> tuple[int, bytes]:
        word, count = entry
        return -count, word if isinstance(word, bytes) else word.encode()

    return [word for word, _ in sorted(kept, key=rank)]
