"""onnxruntime: one session for all shapes; its CPU, CUDA and TensorRT providers."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Any

from millstream.errors import EnforceNotMet
from millstream.inference.engines._engine import Array, Compiled, Options


@cache
def why_not() -> str | None:
    """Why onnxruntime can't be used, or None."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as missing:
        return f"the package {missing.name} is not installed: pip install millstream[engines]"
    return None


def why_no_provider(provider: str) -> str | None:
    """Why a provider of onnxruntime can't be used, or None."""
    reason = why_not()
    if reason is not None:
        return reason
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if provider in there:
        return None
    return f"this onnxruntime has no {provider} (it has {', '.join(there)}); it comes with the package onnxruntime-gpu"


def version() -> str:
    return metadata.version("onnxruntime")


def make(model: bytes, inputs: list[str], outputs: list[str], options: Options) -> Compiled:
    """A session on the CPU."""
    return _session(model, inputs, outputs, options, ["CPUExecutionProvider"])


def make_cuda(model: bytes, inputs: list[str], outputs: list[str], options: Options) -> Compiled:
    """A session on a CUDA device. Never run by its authors."""
    providers = [("CUDAExecutionProvider", dict(options.settings)), "CPUExecutionProvider"]
    return _session(model, inputs, outputs, options, providers)


def make_tensorrt(model: bytes, inputs: list[str], outputs: list[str], options: Options) -> Compiled:
    """A session on TensorRT, on CUDA for what TensorRT does not take. Never run by its authors."""
    settings = dict(options.settings)
    providers = [("TensorrtExecutionProvider", settings), "CUDAExecutionProvider", "CPUExecutionProvider"]
    return _session(model, inputs, outputs, options, providers)


def _session(model: bytes, inputs: list[str], outputs: list[str], options: Options, providers: list[Any]) -> Compiled:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, settings, providers=providers)
    kept = [i.name for i in session.get_inputs()]  # an input that nothing needs is not there any more
    positions = [inputs.index(name) for name in kept]
    run = session.run
    asked = onnxruntime.RunOptions() if options.bounded else None
    if asked is not None:
        asked.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def call(xs: list[Array]) -> list[Array]:
        try:
            found: list[Array] = run(outputs, {name: xs[i] for name, i in zip(kept, positions)}, asked)
        except Exception as error:  # its own classes have no common one but Exception
            raise EnforceNotMet(f"onnxruntime: {error}") from error
        return found

    return call
