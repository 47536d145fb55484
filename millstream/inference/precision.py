"""Forms in bfloat16 and int8, taken only when their results on the user's own data are as near as he asks."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from millstream.errors import AccuracyError, MillstreamError, NotSupportedError
from millstream.inference import engines
from millstream.inference.candidates import Request, difference
from millstream.inference.engine_op import SubModel
from millstream.inference.model import Form, Model
from millstream.inference.partition import partition
from millstream.runtime.plan import Context

PRECISIONS = ("float32", "bfloat16", "int8")
_FLOAT32 = ("pack_conv", "reuse_memory")
_INT8 = ("onnxruntime", "openvino")  # both run what onnxruntime's tool quantises


def reduced_forms(
    model: Model, engine: str, options: engines.Options, precision: str, calibration: Sequence[Request], max_error: float
) -> tuple[dict[str, Form], dict[str, float]]:
    """The Forms in `precision` whose results on `calibration` are within `max_error` of the native float32 ones.

    The error of a result is its largest difference, relative to its largest value, over all batches.

    Returns:
        The Forms by name ("openvino bfloat16", …), and the error of each.

    Raises:
        AccuracyError: no Form is near enough; its text has the errors that were measured.
        NotSupportedError: nothing here computes in that precision.
    """
    ctx = model.context()
    wanted = [_own(model.native.run(*request, ctx)) for request in calibration]
    forms: dict[str, Form] = {}
    errors: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name in _engines(engine, precision):
        label = f"{name} {precision}"
        try:
            form = _form(model, name, options, precision, calibration, ctx)
            form.name = label
            errors[label] = max(difference(form.run(*request, ctx), want) for request, want in zip(calibration, wanted))
            forms[label] = form
        except (MillstreamError, RuntimeError, ValueError) as error:
            failed[label] = str(error).splitlines()[0]
    if not forms:
        raise NotSupportedError(f"precision={precision!r}: nothing here computes in it: {_listed(failed)}")
    near = {name: form for name, form in forms.items() if errors[name] <= max_error}
    if not near:
        figures = _listed({n: f"{e:.3g}" for n, e in errors.items()})
        raise AccuracyError(
            f"precision={precision!r}: max_error={max_error:g} does not hold on the {len(calibration)} calibration batches; "
            f"largest difference relative to the largest value: {figures}. Allow more, or stay with float32"
        )
    return near, errors


def _engines(engine: str, precision: str) -> list[str]:
    takers = _INT8 if precision == "int8" else ("openvino", "native")
    if engine == "auto":
        return list(takers)
    if engine not in takers:
        raise NotSupportedError(f"engine {engine!r} does not compute in {precision}; {' and '.join(takers)} do, or 'auto'")
    return [engine]


def _form(
    model: Model, name: str, options: engines.Options, precision: str, calibration: Sequence[Request], ctx: Context
) -> Form:  # fmt: skip
    if name == "native":
        return _half(model)
    transform = None
    if precision == "int8":
        transform = _quantiser(_inputs_of_groups(model, name, options, calibration, ctx))
    else:
        options = replace(options, precision=precision)
    made = partition(model, name, options, transform)
    if made.form is None:
        raise NotSupportedError("it takes no part of the model: " + made.explain().replace("\n", "; "))
    return made.form


def _half(model: Model) -> Form:
    """The native Form under autocast, without kernels that hold weights of their own in float32."""
    if not model.optimize:
        return Form(model, "native", model.program, half=True)
    work = model.optimized(model.program, [n for n in model.pass_names if n not in _FLOAT32])
    model.keep(work.values)
    form = Form(model, "native", work.program, half=True)
    form.work = work
    return form


# ---- int8 --------------------------------------------------------------------------------------------
def _inputs_of_groups(
    model: Model, name: str, options: engines.Options, calibration: Sequence[Request], ctx: Context
) -> list[list[list[np.ndarray[Any, Any]]]]:  # fmt: skip
    """What each sub-model gets when the calibration batches run in float32: by sub-model, by batch."""
    made = partition(model, name, options)
    if made.form is None:
        raise NotSupportedError("it takes no part of the model: " + made.explain().replace("\n", "; "))
    subs: list[SubModel] = made.form.engines
    seen: list[list[list[np.ndarray[Any, Any]]]] = [[] for _ in subs]

    def watched(run: Any, into: list[list[np.ndarray[Any, Any]]]) -> Any:
        def call(xs: list[np.ndarray[Any, Any]]) -> Any:
            into.append([x.copy() for x in xs])
            return run(xs)

        return call

    for sub, into in zip(subs, seen):
        sub.run = watched(sub.run, into)
    for request in calibration:
        made.form.run(*request, ctx)
    return seen


def _quantiser(seen: list[list[list[np.ndarray[Any, Any]]]]) -> Any:
    """The change of ONNX bytes that writes weights and activations as int8, by ranges measured on `seen`."""
    groups = iter(seen)

    def transform(data: bytes, key: str) -> bytes:
        import onnx
        from onnxruntime import quantization

        batches = next(groups)
        names = [i.name for i in onnx.load_from_string(data).graph.input]

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.left: Iterator[dict[str, Any]] = (dict(zip(names, xs)) for xs in batches)

            def get_next(self) -> dict[str, Any] | None:
                return next(self.left, None)

        with tempfile.TemporaryDirectory() as folder, _quiet():
            given, before, after = (os.path.join(folder, f"{name}.onnx") for name in ("given", "float", "int8"))
            with open(given, "wb") as fh:  # a path: of a model in memory the tool writes what it can't read again
                fh.write(data)
            try:
                quantization.quant_pre_process(given, before, skip_symbolic_shape=True)
                quantization.quantize_static(
                    before, after, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                    activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                )  # fmt: skip
            except Exception as error:  # the tool and the packages under it have no common class of errors
                raise NotSupportedError(f"onnxruntime can't quantise it: {type(error).__name__}: {error}") from error
            with open(after, "rb") as made:
                return made.read()

    return transform


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime's tool says what it does, and every initializer that it drops."""
    import onnxruntime

    logger = logging.getLogger("onnxruntime")
    root, level = logging.getLogger(), logger.level
    before = root.level
    onnxruntime.set_default_logger_severity(3)
    logger.setLevel(logging.CRITICAL)
    root.setLevel(max(before, logging.ERROR))
    try:
        yield
    finally:
        root.setLevel(before)
        logger.setLevel(level)
        onnxruntime.set_default_logger_severity(2)


def _own(results: list[Any]) -> list[Any]:
    return [(v.clone() if isinstance(v, torch.Tensor) else v, lod) for v, lod in results]


def _listed(found: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in found.items()) or "no engine is installed"
