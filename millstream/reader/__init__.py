"""``paddle.reader``: functions that build one reader from others.

A *reader* is a function without parameters that returns an iterator of samples; a *decorator*
takes readers and returns a reader, so that nothing is read before the result is iterated.
"""

from . import creator, decorator
from .decorator import (
    ComposeNotAligned,
    buffered,
    cache,
    chain,
    compose,
    firstn,
    map_readers,
    multiprocess_reader,
    shuffle,
    xmap_readers,
)
from .streams import Fake, PipeReader

__all__ = [
    "ComposeNotAligned",
    "Fake",
    "PipeReader",
    "buffered",
    "cache",
    "chain",
    "compose",
    "creator",
    "decorator",
    "firstn",
    "map_readers",
    "multiprocess_reader",
    "shuffle",
    "xmap_readers",
]
