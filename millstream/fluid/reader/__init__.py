"""``fluid.reader``: loaders that feed Programs and imperative code."""

from millstream.fluid.reader.dataset_loader import DatasetLoader
from millstream.fluid.reader.generator import DataLoaderBase, DygraphGeneratorLoader, GeneratorLoader, PyReader
from millstream.fluid.reader.loader import DataLoader

__all__ = [
    "DataLoader",
    "DataLoaderBase",
    "DatasetLoader",
    "DygraphGeneratorLoader",
    "GeneratorLoader",
    "PyReader",
    "keep_data_loader_order",
]


def keep_data_loader_order(*args: bool) -> bool | None:
    """Ask whether places get batches in order (no argument), or ask for it: here they always do.

    Raises ValueError: order is switched off, which would have no effect.
    """
    if not args:
        return True
    if len(args) != 1 or not isinstance(args[0], bool):
        raise TypeError(f"keep_data_loader_order takes one bool, received {args!r}")
    if not args[0]:
        raise ValueError("keep_data_loader_order(False): batches are always handed out in order here")
    return None
