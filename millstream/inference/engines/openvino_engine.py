"""OpenVINO on the CPU: compiled for each of the first shapes that come, then once for any shape."""

from __future__ import annotations

import threading
from functools import cache
from importlib import metadata
from typing import Any

from millstream.errors import EnforceNotMet
from millstream.inference.engines._engine import Array, Compiled, Options

STATIC = 4  # shapes to compile for; each has weights of its own
_PRECISION = {"float32": "f32", "bfloat16": "bf16"}
_Shapes = tuple[tuple[int, ...], ...]


@cache
def why_not() -> str | None:
    """Why OpenVINO can't be used, or None."""
    try:
        import onnx  # noqa: F401
        import openvino  # noqa: F401
    except ImportError as missing:
        return f"the package {missing.name} is not installed: pip install millstream[engines]"
    return None


def version() -> str:
    return metadata.version("openvino")


@cache
def core() -> Any:
    """OpenVINO's entry point, one a process."""
    import openvino

    return openvino.Core()


def make(model: bytes, inputs: list[str], outputs: list[str], options: Options) -> Compiled:
    """A sub-model on OpenVINO."""
    return _Compiled(model, inputs, outputs, options)


class _Compiled:
    def __init__(self, model: bytes, inputs: list[str], outputs: list[str], options: Options) -> None:
        self._model = model
        read = core().read_model(model)
        kept = [_known(port, inputs) for port in read.inputs]
        self._positions = [inputs.index(name) for name in kept]
        self._outputs = [_index(read.outputs, name) for name in outputs]
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(options.threads),
            "INFERENCE_PRECISION_HINT": _PRECISION[options.precision],
            **options.settings,
        }
        self._static = 0 if options.bounded else STATIC
        self._compiled: dict[_Shapes | None, Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def __call__(self, xs: list[Array]) -> list[Array]:
        arrays = [xs[i] for i in self._positions]
        request = self._request(tuple([a.shape for a in arrays]))
        try:
            found = request.infer(arrays, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EnforceNotMet(f"openvino: {error}") from error
        values = list(found.values())
        return [values[i] for i in self._outputs]

    def _request(self, shapes: _Shapes) -> Any:
        """This thread's request for these shapes."""
        mine = self._local.__dict__.setdefault("requests", {})
        found = mine.get(shapes)
        if found is None:
            key = shapes if shapes in self._compiled or len(self._compiled) < self._static else None
            found = mine.get(key)
            if found is None:
                found = mine[key] = self._compile(key).create_infer_request()
        return found

    def _compile(self, key: _Shapes | None) -> Any:
        with self._lock:
            if key not in self._compiled:
                model = core().read_model(self._model)
                if key is not None:
                    model.reshape({port: list(shape) for port, shape in zip(model.inputs, key)})
                self._compiled[key] = core().compile_model(model, "CPU", self._config)
            return self._compiled[key]


def _known(port: Any, names: list[str]) -> str:
    return next(name for name in names if name in port.names)


def _index(ports: list[Any], name: str) -> int:
    return next(i for i, port in enumerate(ports) if name in port.names)
