"""The onnx package, which is an extra: found when it is needed, with an error that says how to get it."""

from __future__ import annotations

from types import ModuleType

from millstream.errors import NotSupportedError


def onnx_package() -> ModuleType:
    """The module `onnx`; NotSupportedError when it is not installed."""
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as missing:
        raise NotSupportedError(
            "ONNX files need the package onnx, which is not installed: pip install millstream[onnx]"
        ) from missing
    return onnx
