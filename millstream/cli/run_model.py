"""``millstream run-model MODEL --input x.npy`` runs a saved model once on arrays from files."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

import numpy as np

from millstream.cli._command import Command
from millstream.cli._model_arguments import ENGINES, array_of, clearly, lengths_of, model_arguments, named
from millstream.errors import FeedError


def _arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument(
        "--input", action="append", default=[], metavar="[NAME=]FILE", help="a .npy file, for each input; the name may be "
        "left out when there is one input",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", action="append", default=[], metavar="[NAME=]N,N,…", help="lengths of the sequences in an input with "
        "LoD (default: all rows are one sequence)",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", help="write each result there as NAME.npy (lengths as NAME.lengths.npy)")
    parser.add_argument("--engine", default="native", choices=ENGINES, help="what runs the model (default: native)")
    parser.add_argument("--threads", type=int, help="for one operator (default: as torch is set)")
    parser.add_argument("--profile", action="store_true", help="print the time by operator")


def _run(arguments: argparse.Namespace) -> int:
    from millstream.inference.session import load

    model = load(
        arguments.model, arguments.engine, threads=arguments.threads, profile=arguments.profile,
        model_filename=arguments.model_filename, params_filename=arguments.params_filename,
    )  # fmt: skip
    lengths = named(arguments.lengths, "lengths", model)
    feed = {name: array_of(path) for name, path in named(arguments.input, "input", model).items()}
    results = model.run({name: _cut(a, name, lengths.get(name)) for name, a in feed.items()})
    for name, value in results.items():
        print(_described(name, value))
    if arguments.output:
        _write(arguments.output, results)
    if arguments.profile:
        print(model.profile(), end="")
    return 0


def _cut(array: np.ndarray[Any, Any], name: str, text: str | None) -> Any:
    if text is None:
        return array
    from millstream.runtime.tensor import LoDTensor, lod_from_lengths

    made = LoDTensor()
    made.set(array)
    made._lod = lod_from_lengths([lengths_of(text, name)])
    return made


def _described(name: str, value: Any) -> str:
    array = np.asarray(value)
    line = f"{name}  {array.dtype} {list(array.shape)}"
    if array.size and array.dtype.kind in "iuf":
        line += f"  least {array.min():.6g}  mean {array.mean():.6g}  largest {array.max():.6g}"
    if not isinstance(value, np.ndarray):
        line += f"  lengths {value.recursive_sequence_lengths()}"
    return line


def _write(folder: str, results: dict[str, Any]) -> None:
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise FeedError(f"--output {folder}: a file of that name exists; name a directory")
    os.makedirs(folder, exist_ok=True)
    for name, value in results.items():
        stem = os.path.join(folder, re.sub(r"[^\w.@-]", "_", name))
        np.save(stem + ".npy", np.asarray(value))
        if not isinstance(value, np.ndarray):
            np.save(stem + ".lengths.npy", np.asarray(value.recursive_sequence_lengths()[-1]))
        print(f"{stem}.npy")


COMMAND = Command("run-model", "run a saved model on arrays from files", _arguments, clearly("run-model", _run))
