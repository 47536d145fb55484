"""Boston housing prices: 506 rows of 13 features and a price.

Samples are (float64 [13], float64 [1]); features are centred on their mean and divided by
their range. The first 80 % are for training. Source: Harrison and Rubinfeld, 1978 (UCI).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import FileFormatError, NotSupportedError
from . import common
from .archives import extract_tar

__all__ = [
    "feature_range",
    "fetch",
    "fluid_model",
    "load_data",
    "predict_reader",
    "test",
    "train",
]

URL = "http://paddlemodels.bj.bcebos.com/uci_housing/housing.data"
MD5 = "d4accdce7a25600298819f8e28e8d593"
FLUID_URL_MODEL = "https://github.com/PaddlePaddle/book/raw/develop/01.fit_a_line/fluid/fit_a_line.fluid.tar"
FLUID_MD5_MODEL = "6e6dd637ccd5993961f68bfbde46090b"

feature_names = [
    "CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B",
    "LSTAT",
]  # fmt: skip

Sample = tuple[np.ndarray, np.ndarray]
UCI_TRAIN_DATA: np.ndarray | None = None
UCI_TEST_DATA: np.ndarray | None = None


def feature_range(maximums: Any, minimums: Any) -> None:
    """Draw the range of each feature into ``image/ranges.png`` (needs matplotlib)."""
    try:
        import matplotlib
    except ImportError as error:
        raise NotSupportedError("uci_housing.feature_range draws with matplotlib, which is not installed") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(maximums)
    figure, axes = pyplot.subplots()
    axes.bar(range(count), maximums, color="r", align="center")
    axes.bar(range(count), minimums, color="b", align="center")
    axes.set_title("feature scale")
    axes.set_xticks(range(count), feature_names[:count])
    axes.set_xlim(-1, count)
    figure.set_figwidth(10)
    figure.set_figheight(6)
    os.makedirs("image", exist_ok=True)
    figure.savefig("image/ranges.png", dpi=48)
    pyplot.close(figure)


def load_data(filename: str, feature_num: int = 14, ratio: float = 0.8) -> None:
    """Read, scale and split the table of `feature_num` columns; done once a process."""
    global UCI_TRAIN_DATA, UCI_TEST_DATA
    if UCI_TRAIN_DATA is not None and UCI_TEST_DATA is not None:
        return
    with open(filename) as stream:
        values = np.array(stream.read().split(), dtype=np.float64)
    if values.size == 0 or values.size % feature_num:
        raise FileFormatError(f"{filename}: {values.size} numbers do not make rows of {feature_num}")
    table = values.reshape(-1, feature_num)
    features = table[:, :-1]
    extent = features.max(axis=0) - features.min(axis=0)
    mean = features.sum(axis=0) / len(table)
    table[:, :-1] = (features - mean) / extent
    cut = int(len(table) * ratio)
    UCI_TRAIN_DATA, UCI_TEST_DATA = table[:cut], table[cut:]


def _load() -> tuple[np.ndarray, np.ndarray]:
    load_data(common.download(URL, "uci_housing", MD5))
    assert UCI_TRAIN_DATA is not None and UCI_TEST_DATA is not None
    return UCI_TRAIN_DATA, UCI_TEST_DATA


def _reader(rows: np.ndarray) -> Callable[[], Iterator[Sample]]:
    return lambda: ((row[:-1], row[-1:]) for row in rows)


def train() -> Callable[[], Iterator[Sample]]:
    """A reader of the first 80 % of the rows."""
    return _reader(_load()[0])


def test() -> Callable[[], Iterator[Sample]]:
    """A reader of the rest."""
    return _reader(_load()[1])


def fluid_model() -> str:
    """Folder with a trained linear model, downloaded and unpacked into a new temporary one."""
    path = common.download(FLUID_URL_MODEL, "uci_housing", FLUID_MD5_MODEL, "fit_a_line.fluid.tar")
    folder = tempfile.mkdtemp(prefix="fit_a_line-")
    extract_tar(path, folder)
    return folder


def predict_reader() -> tuple[np.ndarray]:
    """One sample without its price: the features of the first test row."""
    return (_load()[1][0][:-1],)


def fetch() -> None:
    """Download the table."""
    common.download(URL, "uci_housing", MD5)
