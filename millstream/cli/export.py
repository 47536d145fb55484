"""``millstream export MODEL --to onnx|openvino|fluid --out PATH`` writes a saved model for another runtime."""

from __future__ import annotations

import argparse
import os

from millstream.cli._command import Command
from millstream.cli._model_arguments import clearly, model_arguments


def _arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument(
        "--to", required=True, choices=("onnx", "openvino", "fluid"),
        help="onnx: one file; openvino: .xml and .bin; fluid: a directory with passes applied, as PaddlePaddle reads it",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="PATH", help="the file, or for fluid the directory, to write")
    parser.add_argument("--opset", type=int, default=17, help="of ONNX operators, 17 to 22 (default: 17)")


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from millstream.inference.export import export
    from millstream.inference.session import open_model

    model = open_model(arguments.model, arguments.model_filename, arguments.params_filename, torch.device("cpu"))
    for path in export(model, arguments.to, arguments.out, arguments.opset):
        print(f"{path}  {os.path.getsize(path)} bytes")
    return 0


COMMAND = Command("export", "write a saved model for another runtime", _arguments, clearly("export", _run))
