"""``paddle.version``: the Fluid version whose interface this is, and millstream's own."""

from __future__ import annotations

full_version = "1.8.5"
major = "1"
minor = "8"
patch = "5"
rc = "0"
istaged = True
commit = ""
with_mkl = "OFF"

millstream = "0.1.0"


def show() -> None:
    """Print the version and how it is built."""
    for name, value in (("full_version", full_version), ("major", major), ("minor", minor), ("patch", patch), ("rc", rc)):
        print(f"{name}: {value}")
    print("millstream:", millstream)


def mkl() -> str:
    """Whether the library is bound to MKL by name: "OFF" (torch chooses its own BLAS)."""
    return with_mkl
