"""``paddle.dataset``: readers of public datasets, by Fluid's names.

Files are looked for in ``common.DATA_HOME/<module>/`` and downloaded there when they are absent;
see :mod:`.settings` for mirrors and offline use, :mod:`.obtain` for how a download is made safe.
"""

from . import (
    cifar,
    common,
    conll05,
    digits,
    flowers,
    image,
    imdb,
    imikolov,
    mnist,
    movielens,
    mq2007,
    sentiment,
    uci_housing,
    voc2012,
    wmt14,
    wmt16,
)

__all__ = [
    "cifar",
    "common",
    "conll05",
    "digits",
    "flowers",
    "image",
    "imdb",
    "imikolov",
    "mnist",
    "movielens",
    "mq2007",
    "sentiment",
    "uci_housing",
    "voc2012",
    "wmt14",
    "wmt16",
]
