"""Engines: other runtimes that execute an ONNX sub-model inside a Program. Needs the extra ``millstream[engines]``.

onnxruntime and openvino run on the CPU. cuda and tensorrt are onnxruntime's providers of these names, for builds of
onnxruntime that have them; they were written without such a machine at hand and have never been run.
"""

from __future__ import annotations

from collections.abc import Callable

from millstream.errors import NotSupportedError
from millstream.inference.engines import onnxruntime_engine, openvino_engine
from millstream.inference.engines._engine import Compiled, Options

MAKERS: dict[str, Callable[[bytes, list[str], list[str], Options], Compiled]] = {
    "onnxruntime": onnxruntime_engine.make,
    "openvino": openvino_engine.make,
    "cuda": onnxruntime_engine.make_cuda,
    "tensorrt": onnxruntime_engine.make_tensorrt,
}
_WHY_NOT: dict[str, Callable[[], str | None]] = {
    "onnxruntime": onnxruntime_engine.why_not,
    "openvino": openvino_engine.why_not,
    "cuda": lambda: onnxruntime_engine.why_no_provider("CUDAExecutionProvider"),
    "tensorrt": lambda: onnxruntime_engine.why_no_provider("TensorrtExecutionProvider"),
}


def why_not(name: str) -> str | None:
    """Why the engine can't be used here, or None.

    Raises NotSupportedError: there is no engine of that name.
    """
    if name not in _WHY_NOT:
        raise NotSupportedError(f"there is no engine {name!r}; known are native, auto, {', '.join(MAKERS)}")
    return _WHY_NOT[name]()


def need(name: str) -> None:
    """NotSupportedError unless the engine can be used here."""
    reason = why_not(name)
    if reason is not None:
        raise NotSupportedError(f"engine {name!r}: {reason}")


def available() -> list[str]:
    """Names of the engines that can be used here."""
    return [name for name in MAKERS if why_not(name) is None]


def version(name: str) -> str:
    """The version of the package behind an engine."""
    return openvino_engine.version() if name == "openvino" else onnxruntime_engine.version()


__all__ = ["MAKERS", "Compiled", "Options", "available", "need", "version", "why_not"]
