"""``fluid.profiler``: time per operator while Programs run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import NotSupportedError
from millstream.runtime import profiler as _recording
from millstream.runtime.place import CUDAPlace

__all__ = ["cuda_profiler", "profiler", "reset_profiler", "start_profiler", "stop_profiler"]

_STATES = ("CPU", "GPU", "All")
_TRACERS = ("Default", "OpDetail", "AllOpDetail")


class _Session:
    state = "CPU"


def _check_key(sorted_key: str | None) -> str:
    key = "default" if sorted_key is None else sorted_key
    if key not in _recording.SORT_KEYS:
        raise ValueError(f"The sorted_key must be None or in {', '.join(map(repr, _recording.SORT_KEYS))}, received {key!r}")
    return key


def start_profiler(state: str, tracer_option: str = "Default") -> None:
    """Time every operator from now on; nothing happens when a profiler is on already.

    Args:
        state: "CPU", "GPU" or "All"; on a machine without CUDA all times are the CPU's.
        tracer_option: "Default"; "OpDetail" and "AllOpDetail" keep the line of the program that made each operator.
    """
    if state not in _STATES:
        raise ValueError(f"The state must be 'CPU' or 'GPU' or 'All', received {state!r}")
    if tracer_option not in _TRACERS:
        raise ValueError(f"tracer option must be 'Default', 'OpDetail', 'AllOpDetail', received {tracer_option!r}")
    if _recording.active() is None:
        _Session.state = state
        _recording.switch(_recording.Recorder(detail=tracer_option != "Default"))


def stop_profiler(sorted_key: str | None = None, profile_path: str = "/tmp/profile") -> None:
    """Print the table and write the trace; nothing happens when no profiler is on.

    Args:
        sorted_key: None or "default" (first ended first), "calls", "total", "max", "min", "ave".
        profile_path: file in Chrome's trace format (chrome://tracing, Perfetto).
    """
    key = _check_key(sorted_key)
    recorder = _recording.switch(None)
    if recorder is None:
        return
    sys.stdout.write(recorder.report(_Session.state, key))
    sys.stdout.flush()
    recorder.save(profile_path)


def reset_profiler() -> None:
    """Forget what was timed so far."""
    recorder = _recording.active()
    if recorder is not None:
        recorder.clear()


@contextmanager
def profiler(
    state: str, sorted_key: str | None = None, profile_path: str = "/tmp/profile", tracer_option: str = "Default"
) -> Iterator[None]:
    """start_profiler at the beginning of a ``with``, stop_profiler at its end."""
    _check_key(sorted_key)
    start_profiler(state, tracer_option)
    try:
        yield
    finally:
        stop_profiler(sorted_key, profile_path)


@contextmanager
def cuda_profiler(output_file: str, output_mode: str | None = None, config: Any = None) -> Iterator[None]:
    """Have CUDA's own profiler (nvprof, Nsight) record inside the ``with``.

    Args:
        output_file, output_mode, config: set by the profiler's command line since CUDA 11; checked, not used.

    Raises NotSupportedError: there is no CUDA device.
    """
    if output_mode is not None and output_mode not in ("kvp", "csv"):
        raise ValueError(f"The cuda profiler output mode must be 'kvp' or 'csv', received {output_mode!r}")
    try:
        CUDAPlace(0).torch_device()
    except NotSupportedError as error:
        raise NotSupportedError(f"cuda_profiler({output_file!r}): {error}") from None
    import torch

    with torch.cuda.profiler.profile():
        yield
