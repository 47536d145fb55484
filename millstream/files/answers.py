"""Which of several ways was fastest, remembered on disk: one JSON file a question, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from typing import Any

from millstream.config import settings
from millstream.files.atomic import write_bytes


def path_of(kind: str, asked: dict[str, Any]) -> str:
    """The file with the answer; `kind` of question is a folder of the cache."""
    name = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()
    return os.path.join(settings().cache_dir, kind, name + ".json")


def recall(kind: str, asked: dict[str, Any], what: str) -> dict[str, float] | None:
    """Milliseconds by candidate, the fastest first, or None. A file that can't be right is ignored with a warning.

    `what` names the choice in warnings.
    """
    path = path_of(kind, asked)
    try:
        with open(path, "rb") as fh:
            data = fh.read(1 << 20)
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"the remembered choice of {what} can't be read and is made again: {error}", stacklevel=2)
        return None
    try:
        found = json.loads(data)
        if found["question"] != asked:
            raise ValueError("it answers another question")
        times = {str(k): float(v) for k, v in found["milliseconds"].items()}
        if not times or not all(0 < t < 1e9 for t in times.values()):
            raise ValueError("its times can't be right")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(f"the remembered choice of {what} in {path} is damaged and made again: {error}", stacklevel=2)
        return None
    return dict(sorted(times.items(), key=lambda item: item[1]))


def remember(kind: str, asked: dict[str, Any], milliseconds: dict[str, float], what: str) -> None:
    """Keep an answer; a directory that can't be written is no error, only a warning."""
    path = path_of(kind, asked)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_bytes(path, json.dumps({"question": asked, "milliseconds": milliseconds}, indent=1).encode())
    except OSError as error:
        warnings.warn(f"the choice of {what} can't be remembered: {error}", stacklevel=2)
