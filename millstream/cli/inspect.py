"""``millstream inspect MODEL`` shows what passes make of a saved model: as text, and as an HTML graph before and after."""

from __future__ import annotations

import argparse
import os

from millstream.cli._command import Command
from millstream.cli._model_arguments import clearly, model_arguments


def _arguments(parser: argparse.ArgumentParser) -> None:
    model_arguments(parser)
    parser.add_argument("--out", metavar="FILE", help="the HTML page (default: the model's name with .html, here)")
    parser.add_argument(
        "--passes", metavar="A,B",
        help="names of passes or of pipelines (infer, fluid, fluid_onednn, export), in order; default: infer. Passes of "
        "installed packages are known by name",
    )  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from millstream.files.atomic import write_bytes
    from millstream.inference.session import open_model
    from millstream.passes.report import Report

    names = _names(arguments.passes or "infer")
    path = arguments.model
    model = open_model(path, arguments.model_filename, arguments.params_filename, torch.device("cpu"))
    report = Report(model.program, model.optimized(model.program, names))
    name = os.path.basename(os.path.abspath(path))
    out = arguments.out or f"{name}.html"
    write_bytes(out, report.html(f"{name}: before and after passes").encode())
    print(report.text())
    print(f"\n{out}")
    return 0


def _names(text: str) -> list[str]:
    """Names of passes; a pipeline's name stands for its passes. InvalidProgramError: there is no pass of a name."""
    from millstream.passes import find, pipelines

    known = {"infer": pipelines.INFER, "fluid": pipelines.FLUID, "export": pipelines.EXPORT}
    known["fluid_onednn"] = pipelines.FLUID_ONEDNN
    names = [name for part in text.split(",") for name in known.get(part.strip(), (part.strip(),))]
    for name in names:
        find(name)
    return names


COMMAND = Command("inspect", "show what passes make of a saved model", _arguments, clearly("inspect", _run))
