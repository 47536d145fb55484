"""feed and fetch: the ends of a saved inference Program. The runtime binds feeds and fetches by name and skips both."""

from __future__ import annotations

from millstream.ops._opdef import op


@op("feed", slots="X -> Out", infer=False, grad=False)
def feed(x, *, col: int):
    """Out = the `col`-th thing fed; X is the variable of kind FEED_MINIBATCH that stands for all feeds."""
    return x


@op("fetch", slots="X -> Out", infer=False, grad=False)
def fetch(x, *, col: int):
    """X is the `col`-th thing fetched; Out is the variable of kind FETCH_LIST that stands for all results."""
    return x
