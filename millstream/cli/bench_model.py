"""``millstream bench-model MODEL`` times a saved model on each engine, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from millstream.cli._command import Command
from millstream.cli._model_arguments import ENGINES, array_of, clearly, model_arguments, named
from millstream.errors import FeedError, MillstreamError


def _arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument(
        "--engine", action="append", choices=("all", *ENGINES), help="may be given several times; all: native and those "
        "that are installed (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--shape", action="append", default=[], metavar="[NAME=]N,N,…", help="of an input, filled with random numbers "
        "(whole numbers: zeros); default: batch 1 of the declared shape",
    )  # fmt: skip
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE", help="a .npy file instead")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each engine (default: 3)")
    parser.add_argument("--threads", type=int, help="for one request (default: as torch is set)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    from millstream.inference.session import load

    if arguments.seconds <= 0:
        raise ValueError(f"--seconds must be positive, received {arguments.seconds}")
    wanted = _engines(arguments.engine or ["all"])
    if len(wanted) == 1:
        rows = [_measured(arguments, wanted[0])]
    else:
        model = load(
            arguments.model, model_filename=arguments.model_filename, params_filename=arguments.params_filename,
        )  # fmt: skip
        model.engine_for(_request(model, arguments))  # what is wrong with it is said once, before processes start
        del model
        rows = [_in_its_own_process(arguments, name) for name in wanted]
    if arguments.json:
        print(json.dumps(rows))
    else:
        print(_table(rows))
    return 0 if any("median_ms" in row for row in rows) else 1


def _engines(wanted: list[str]) -> list[str]:
    from millstream.inference import engines

    return list(dict.fromkeys(n for w in wanted for n in (["native", *engines.available()] if w == "all" else [w])))


def _in_its_own_process(arguments: argparse.Namespace, engine: str) -> dict[str, Any]:
    """One engine's row; memory that another one used is not in its peak."""
    command = [sys.executable, "-m", "millstream.cli", "bench-model", arguments.model, "--engine", engine, "--json"]
    command += ["--seconds", str(arguments.seconds)]
    for flag in ("model_filename", "params_filename", "threads"):
        if getattr(arguments, flag) is not None:
            command += ["--" + flag.replace("_", "-"), str(getattr(arguments, flag))]
    for flag in ("shape", "input"):
        command += [part for item in getattr(arguments, flag) for part in ("--" + flag, item)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])[0]
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines()
        row = {"engine": engine, "error": lines[-1] if lines else f"ended with status {done.returncode}"}
    return row


def _measured(arguments: argparse.Namespace, engine: str) -> dict[str, Any]:
    from millstream.inference.session import load

    try:
        start = time.perf_counter()
        model = load(
            arguments.model, engine, threads=arguments.threads, model_filename=arguments.model_filename,
            params_filename=arguments.params_filename,
        )  # fmt: skip
        request = _request(model, arguments)
        model.run(request)
        first = time.perf_counter() - start
        times = _times(model, request, arguments.seconds)
    except MillstreamError as error:
        return {"engine": engine, "error": str(error)}
    times.sort()
    rows = max([len(a) for a in request.values() if a.ndim], default=1)
    return {
        "engine": engine,
        "median_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[min(len(times) - 1, int(len(times) * 0.99))] * 1e3,
        "runs": len(times),
        "rows_per_second": rows * len(times) / sum(times),
        "first_run_s": first,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "used": model.engine_for(request),
    }


def _times(model: Any, request: dict[str, Any], seconds: float) -> list[float]:
    for _ in range(3):
        model.run(request)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        model.run(request)
        times.append(time.perf_counter() - start)
    return times


def _request(model: Any, arguments: argparse.Namespace) -> dict[str, np.ndarray[Any, Any]]:
    shapes, files = named(arguments.shape, "shape", model), named(arguments.input, "input", model)
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for port in model.inputs:
        if port.name in files:
            found[port.name] = array_of(files[port.name])
            continue
        shape = [d if d > 0 else 1 for d in port.shape]
        if port.name in shapes:
            try:
                shape = [int(d) for d in shapes[port.name].replace("x", ",").split(",")]
            except ValueError:
                text = f"--shape {port.name}={shapes[port.name]}: expected numbers with commas between them"
                raise FeedError(text) from None
        kind = np.dtype(port.dtype or "float32")
        found[port.name] = rng.standard_normal(shape).astype(kind) if kind.kind == "f" else np.zeros(shape, kind)
    return found


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'engine':<14}{'median ms':>11}{'p99 ms':>11}{'rows/s':>11}{'first s':>9}{'peak MiB':>10}{'runs':>7}"]
    for row in rows:
        if "median_ms" not in row:
            lines.append(f"{row['engine']:<14}{row['error']}")
            continue
        name = row["engine"] if row["used"] == row["engine"] else f"{row['engine']}={row['used']}"
        lines.append(
            f"{name:<14}{row['median_ms']:>11.3f}{row['p99_ms']:>11.3f}{row['rows_per_second']:>11.1f}"
            f"{row['first_run_s']:>9.2f}{row['peak_mib']:>10.0f}{row['runs']:>7}"
        )
    return "\n".join(lines)


COMMAND = Command("bench-model", "time a saved model on each engine", _arguments, clearly("bench-model", _run))
