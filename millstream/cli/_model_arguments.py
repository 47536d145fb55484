"""What the commands on saved models have in common: their inputs on the command line, and errors without a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from millstream.errors import FeedError, MillstreamError, MissingFileError

if TYPE_CHECKING:
    from millstream.inference.session import LoadedModel

ENGINES = ("native", "auto", "onnxruntime", "openvino", "cuda", "tensorrt")


def model_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL and the names of its files."""
    parser.add_argument("model", metavar="MODEL", help="a directory of save_inference_model, its program file, or .onnx")
    parser.add_argument("--model-filename", metavar="NAME", help="the program's file in the directory")
    parser.add_argument("--params-filename", metavar="NAME", help="the combined parameters' file in the directory")


def clearly(command: str, work: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """`work` with errors that are the user's as one message and status 1."""

    def run(arguments: argparse.Namespace) -> int:
        try:
            return work(arguments)
        except (MillstreamError, OSError, ValueError) as error:
            sys.stderr.write(f"millstream {command}: {error}\n")
        except MemoryError as error:
            sys.stderr.write(f"millstream {command}: there is not enough memory: {error}\n")
        return 1

    return run


def named(items: list[str], what: str, model: LoadedModel) -> dict[str, str]:
    """name -> text of arguments ``name=text``; a lone ``text`` belongs to the only input."""
    inputs = [port.name for port in model.inputs]
    found: dict[str, str] = {}
    for item in items:
        name, mark, text = item.partition("=")
        if not mark or name not in inputs:
            there = f"the model's input{'s are' if len(inputs) != 1 else ' is'} {', '.join(inputs)}"
            if mark:
                raise FeedError(f"--{what} {item}: the model has no input {name!r}; {there}")
            if len(inputs) != 1:
                raise FeedError(f"--{what} {item}: say for which input: name=…; {there}")
            name, text = inputs[0], item
        if name in found:
            raise FeedError(f"--{what}: {name} is given twice")
        found[name] = text
    return found


def array_of(path: str) -> np.ndarray[Any, Any]:
    """The array in a .npy file; MissingFileError, or FeedError when it is none."""
    if not os.path.isfile(path):
        raise MissingFileError(f"--input: there is no file {path!r}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        why = "it holds Python objects, which are not read" if "allow_pickle" in str(error) else str(error)
        with open(path, "rb") as file:
            why = why if file.read(6) in (b"\x93NUMPY", b"PK\x03\x04") else "it does not begin like one"
        raise FeedError(f"--input {path}: not an array file (.npy): {why}") from None
    if not isinstance(found, np.ndarray):
        raise FeedError(f"--input {path}: an archive of several arrays; give one .npy file for each input")
    return found


def lengths_of(text: str, name: str) -> list[int]:
    """``3,2,4`` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise FeedError(f"--lengths {name}={text}: expected numbers with commas between them") from None
