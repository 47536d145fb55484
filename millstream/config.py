"""Typed settings: the only reader of environment variables.

Two kinds. :func:`settings` looks at the environment each time, so a program may set ``CPU_NUM`` after the import, as
Fluid programs do. Flags (``FLAGS_*``) are read once, at import, and then changed by :func:`set_flags`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from millstream.errors import AttributeTypeError

Value = bool | int | float | str
_TRUE, _FALSE = frozenset({"1", "true", "t", "yes", "y", "on"}), frozenset({"0", "false", "f", "no", "n", "off", ""})


def _cache_dir() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "millstream")


def _data_home() -> str:
    return os.environ.get("DATA_HOME") or os.path.join(_cache_dir(), "dataset")


@dataclass(frozen=True)
class Settings:
    """What the environment says; `env` in the metadata is the variable's name."""

    cpu_num: int = field(default=1, metadata={"env": "CPU_NUM", "low": 1})
    """``CPU_NUM``: devices of a data-parallel program and of ``cpu_places()``."""
    data_home: str = field(default_factory=_data_home, metadata={"env": "MILLSTREAM_DATA_HOME"})
    """``MILLSTREAM_DATA_HOME`` (or ``DATA_HOME``): directory of downloaded datasets."""
    dataset_mirrors: tuple[str, ...] = field(default=(), metadata={"env": "MILLSTREAM_DATASET_MIRROR"})
    """``MILLSTREAM_DATASET_MIRROR``: addresses asked before a dataset's own, separated by commas or spaces."""
    cache_dir: str = field(default_factory=_cache_dir, metadata={"env": "MILLSTREAM_CACHE_DIR"})
    """``MILLSTREAM_CACHE_DIR``: directory of compiled kernels and other things that can be made again."""
    keep_memory_mb: int = field(default=2047, metadata={"env": "MILLSTREAM_KEEP_MEMORY_MB", "low": 0})
    """``MILLSTREAM_KEEP_MEMORY_MB``: freed memory that Executors keep for the next step; 0 leaves malloc as it is."""


@dataclass(frozen=True)
class Cluster:
    """The place of this process among others, as Fluid's launcher describes it (``PADDLE_*``)."""

    training_role: str = field(default="TRAINER", metadata={"env": "TRAINING_ROLE"})
    trainer_id: int = field(default=0, metadata={"env": "PADDLE_TRAINER_ID", "low": 0})
    trainers_num: int = field(default=1, metadata={"env": "PADDLE_TRAINERS_NUM", "low": 1})
    current_endpoint: str = field(default="", metadata={"env": "PADDLE_CURRENT_ENDPOINT"})
    trainer_endpoints: tuple[str, ...] = field(default=(), metadata={"env": "PADDLE_TRAINER_ENDPOINTS"})
    pserver_endpoints: tuple[str, ...] = field(default=(), metadata={"env": "PADDLE_PSERVERS_IP_PORT_LIST"})
    pod_ip: str = field(default="", metadata={"env": "POD_IP"})
    port: str = field(default="", metadata={"env": "PADDLE_PORT"})


def keep_compiled_code() -> str:
    """Have torch's compiler keep what it makes under our cache directory, unless ``TORCHINDUCTOR_CACHE_DIR`` says where.

    To be called before torch's compiler is imported, by whatever part of torch: it sets a directory of its own. Returns
    the directory.
    """
    return os.path.abspath(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(settings().cache_dir, "inductor")))


SPIN, SPIN_ALONE = 2_000, 20_000
"""How often a thread of libgomp looks for work before it sleeps, on a machine that others use and on one that is ours.

2,000 looks are about 35 us on Zen 4.
"""
LOAD, TASKS = "/proc/loadavg", "/proc/self/task"
_LOOKS, _PAUSE = 5, 0.001  # at the load, and seconds between them


def wait_shortly() -> None:
    """Have torch's threads that wait for work give the processor back soon; to be called before torch is imported.

    libgomp's own choice, 5 ms and more of looking, takes the core from whoever is waited for. Nothing is set where the
    user has chosen (``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``), nor does it reach a torch that is there already.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_ALONE if _alone() else SPIN)


def _alone() -> bool:
    """Whether no other process keeps a thread running; False where the system does not tell.

    The number of threads that are running or ready is that of an instant, in which something may be up that soon sleeps:
    whoever keeps running is there at every look. Our own do not count: OpenBLAS, which numpy brings, has its threads look
    for work for some 25 ms from the import on.
    """
    try:
        for _ in range(_LOOKS):
            with open(LOAD, encoding="ascii") as file:
                running = int(file.read().split()[3].split("/")[0])
            if running <= 1 or running <= _own_running():
                return True
            time.sleep(_PAUSE)
    except (OSError, ValueError, IndexError):
        pass
    return False


def _own_running() -> int:
    """Threads of this process that are running or ready."""
    count = 0
    for thread in os.listdir(TASKS):
        with suppress(OSError), open(f"{TASKS}/{thread}/stat", encoding="utf-8", errors="replace") as file:
            count += file.read().rpartition(") ")[2].startswith("R")
    return count


def environment() -> Mapping[str, str]:
    """The process environment, for the few places that read variables of their own."""
    return os.environ


def tell(**variables: str) -> None:
    """Set variables of the process environment, for this process and those that it starts."""
    os.environ.update(variables)


def settings() -> Settings:
    """The settings as the environment stands now; raises ValueError naming a variable with a wrong value."""
    return Settings(**_from_environment(Settings))


def cluster() -> Cluster:
    """The distributed environment as it stands now; raises ValueError naming a variable with a wrong value."""
    return Cluster(**_from_environment(Cluster))


def _from_environment(kind: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for f in fields(kind):
        text = os.environ.get(f.metadata["env"], "")
        if not text:
            continue
        if f.type == "int":
            found[f.name] = _bounded_int(f.metadata["env"], text, f.metadata["low"])
        elif f.type == "str":
            found[f.name] = text
        else:
            found[f.name] = tuple(text.replace(",", " ").split())
    return found


def _bounded_int(name: str, text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise ValueError(f"environment variable {name}: expected an integer >= {low}, received {text!r}")
    return value


# ---- flags ---------------------------------------------------------------------------------------
class Flag(NamedTuple):
    """A ``FLAGS_*`` of Fluid: its default (which fixes the type), and what it does here."""

    default: Value
    meaning: str
    honoured: bool = False


_MEMORY = "no effect: memory comes from torch's allocator and is given back as values die"
_GPU = "no effect: there is no GPU here"
_RPC = "no effect: communication has its own time limits"
_IR = "no effect: the order and fusion of operators is decided by the Plan"

KNOWN: dict[str, Flag] = {
    "lstm_state_gradient": Flag(
        False, "True: the whole gradient of lstm and lstmp; False: that of 1.8.5's CPU kernels (see docs/migration.md)", True
    ),
    "check_nan_inf": Flag(False, "stop at the first operator whose output holds NaN or infinity", True),
    "benchmark": Flag(False, "no effect: operators run one after the other, so timings need no synchronisation"),
    "paddle_num_threads": Flag(1, "threads inside one operator when the program sets it; see the Executor", True),
    "cpu_deterministic": Flag(False, "no effect: sums have one order on the CPU always"),
    "sort_sum_gradient": Flag(False, "no effect: gradients are summed in the order they are made"),
    "print_sub_graph_dir": Flag("", "no effect: use Program.to_string or draw"),
    "tracer_profile_fname": Flag("xxgperf", "no effect: use the profiler"),
    "pe_profile_fname": Flag("", "no effect: use the profiler"),
    "reader_queue_speed_test_mode": Flag(False, "a reader gives its first batch again and again", True),
    "call_stack_level": Flag(1, "no effect: errors name the user's own line"),
    "use_mkldnn": Flag(False, "no effect: torch uses oneDNN by itself"),
    "max_inplace_grad_add": Flag(0, "no effect: gradients are added in place where that is safe"),
    **dict.fromkeys(("enable_parallel_graph", "use_ngraph"), Flag(False, _IR)),
    "fuse_parameter_groups_size": Flag(1, _IR),
    "fuse_parameter_memory_size": Flag(-1.0, _IR),
    "inner_op_parallelism": Flag(0, _IR),
    "allocator_strategy": Flag("auto_growth", _MEMORY),
    "eager_delete_tensor_gb": Flag(0.0, _MEMORY),
    "memory_fraction_of_eager_deletion": Flag(1.0, _MEMORY),
    "fast_eager_deletion_mode": Flag(True, _MEMORY),
    "fraction_of_cpu_memory_to_use": Flag(1.0, _MEMORY),
    "initial_cpu_memory_in_mb": Flag(500, _MEMORY),
    **dict.fromkeys(
        ("free_idle_chunk", "free_when_no_cache_hit", "init_allocated_mem", "use_system_allocator"), Flag(False, _MEMORY)
    ),
    "use_pinned_memory": Flag(True, _MEMORY),
    "fraction_of_gpu_memory_to_use": Flag(0.92, _GPU),
    "fraction_of_cuda_pinned_memory_to_use": Flag(0.5, _GPU),
    "initial_gpu_memory_in_mb": Flag(0, _GPU),
    "reallocate_gpu_memory_in_mb": Flag(0, _GPU),
    "gpu_memory_limit_mb": Flag(0, _GPU),
    "conv_workspace_size_limit": Flag(512, _GPU),
    "cudnn_exhaustive_search_times": Flag(-1, _GPU),
    "multiple_of_cupti_buffer_size": Flag(1, _GPU),
    "selected_gpus": Flag("", _GPU),
    "cudnn_dir": Flag("", _GPU),
    **dict.fromkeys(
        (
            "cudnn_deterministic",
            "cudnn_exhaustive_search",
            "cudnn_batchnorm_spatial_persistent",
            "enable_cublas_tensor_op_math",
            "sync_nccl_allreduce",
        ),
        Flag(False, _GPU),
    ),
    "enable_rpc_profiler": Flag(False, _RPC),
    "rpc_deadline": Flag(180000, _RPC),
    "rpc_retry_times": Flag(3, _RPC),
    "rpc_server_profile_path": Flag("./profile_ps", _RPC),
    "dist_threadpool_size": Flag(0, _RPC),
}

_PREFIX = "FLAGS_"


def _from_text(name: str, text: str, default: Value) -> Value:
    low = text.strip().lower()
    if isinstance(default, bool):
        if low in _TRUE or low in _FALSE:
            return low in _TRUE
        wanted = "true or false"
    elif isinstance(default, str):
        return text
    else:
        try:
            return type(default)(low)
        except ValueError:
            wanted = "an integer" if isinstance(default, int) else "a number"
    raise ValueError(f"environment variable {_PREFIX}{name}: expected {wanted}, received {text!r}")


def _initial() -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, known in KNOWN.items():
        text = os.environ.get(_PREFIX + name)
        values[name] = known.default if text is None else _from_text(name, text, known.default)
    return values


_values: dict[str, Value] = _initial()


def flag(name: str) -> Value:
    """The value of a flag, by its name without ``FLAGS_``."""
    return _values[name]


def get_flags(flags: str | Iterable[str]) -> dict[str, Value]:
    """Values of ``FLAGS_*`` by name.

    Raises TypeError: `flags` is not a name, list or tuple. ValueError: there is no such flag.
    """
    if isinstance(flags, str):
        flags = [flags]
    if not isinstance(flags, (list, tuple)):
        raise TypeError(f"Flags in get_flags should be a list, tuple or string, received {type(flags).__name__}")
    return {name: _values[_known(name, "get")] for name in flags}


def set_flags(flags: Mapping[str, Value]) -> None:
    """Set ``FLAGS_*`` by name; all or, when one is wrong, none.

    Raises TypeError: `flags` is not a dict. ValueError: there is no such flag. AttributeTypeError (a RuntimeError
    and TypeError): a value of another type than the flag's.
    """
    if not isinstance(flags, dict):
        raise TypeError(f"flags in set_flags should be a dict, received {type(flags).__name__}")
    new: dict[str, Value] = {}
    for name, value in flags.items():
        short = _known(name, "set")
        default = KNOWN[short].default
        if isinstance(default, bool):
            fits = isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
        elif isinstance(default, float):
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            fits = isinstance(value, type(default)) and not isinstance(value, bool)
        if not fits:
            raise AttributeTypeError(f"{name}: expected a {type(default).__name__}, received {value!r}")
        new[short] = type(default)(value)
    _values.update(new)


def _known(name: Any, verb: str) -> str:
    short = name[len(_PREFIX) :] if isinstance(name, str) and name.startswith(_PREFIX) else ""
    if short not in KNOWN:
        import difflib

        close = difflib.get_close_matches(str(name), [_PREFIX + k for k in KNOWN], 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ValueError(f"Flag {name} cannot {verb} its value through this function.{hint}")
    return short
