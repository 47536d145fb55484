"""Settings of the dataset loaders, read from the environment in this one place.

MILLSTREAM_DATA_HOME      folder of the dataset files (also DATA_HOME); default
                          ``~/.cache/millstream/dataset``
MILLSTREAM_DATASET_MIRROR base addresses tried before the original one, separated by commas or
                          spaces; the file is looked for at ``<base>/<module>/<file>``
MILLSTREAM_DATASET_TIMEOUT seconds without a byte after which a connection is given up (30)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millstream import config

__all__ = ["DatasetSettings", "read_settings"]


@dataclass(frozen=True)
class DatasetSettings:
    """`fallback_homes` are read, never written: files another installation downloaded."""

    data_home: Path
    mirrors: tuple[str, ...] = ()
    timeout: float = 30.0
    fallback_homes: tuple[Path, ...] = ()


def read_settings(environ: Mapping[str, str] | None = None) -> DatasetSettings:
    """The settings in `environ` (default: the process environment)."""
    env = config.environment() if environ is None else environ
    cache = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = env.get("MILLSTREAM_DATA_HOME") or env.get("DATA_HOME")
    mirrors = env.get("MILLSTREAM_DATASET_MIRROR", "").replace(",", " ").split()
    text = env.get("MILLSTREAM_DATASET_TIMEOUT", "30")
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if timeout <= 0:
        raise ValueError(f"MILLSTREAM_DATASET_TIMEOUT must be a positive number, got {text!r}")
    return DatasetSettings(
        data_home=Path(home).expanduser() if home else cache / "millstream" / "dataset",
        mirrors=tuple(mirror.rstrip("/") for mirror in mirrors),
        timeout=timeout,
        fallback_homes=(Path.home() / ".cache" / "paddle" / "dataset",),
    )
