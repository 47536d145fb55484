"""``millstream.load``: a saved model in one line, on the engine that is fastest for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from millstream.errors import EnforceNotMet, FeedError, MemoryLimitError
from millstream.inference import engines, memory
from millstream.inference.candidates import Candidates, Request, signature_of
from millstream.inference.engine_op import array_of
from millstream.inference.loading import device_of, from_onnx, from_path
from millstream.inference.memory import Budget
from millstream.inference.model import Form, Model, Result, threads_set
from millstream.inference.precision import PRECISIONS, reduced_forms
from millstream.inference.profile import Times
from millstream.inference.requests import Inputs, request_results
from millstream.ir.types import dtype_name
from millstream.ir.variable import Variable
from millstream.ops._values import NO_LOD, LoD
from millstream.passes import find, pipelines
from millstream.runtime.plan import Context


class Port(NamedTuple):
    """An input or a result: dtype by name, -1 for a dimension that may vary."""

    name: str
    shape: list[int]
    dtype: str
    lod_level: int


class LoadedModel:
    """A model to run; made by :func:`load`. Several threads may use one at a time: each gets a state of its own."""

    def __init__(
        self, model: Model, candidates: Candidates, threads: int | None, budget: Budget | None, errors: dict[str, float]
    ) -> None:
        self._model = model
        self._candidates = candidates
        self._threads = threads
        self._budget = budget
        self._errors = errors
        self._read = Inputs(model)
        self._local = threading.local()
        self._times: list[Times] = []

    # ---- running -----------------------------------------------------------------------------
    def run(self, *inputs: Any) -> Any:
        """The results for inputs given in order, or as one dict by name.

        An input is an array, a torch tensor, a LoDTensor or nested lists. One with LoD is a list of sequences (arrays of
        [length, …]; lists of such for two levels); an array there is one sequence. Batch sizes may change from
        call to call.

        Returns:
            A list in the order of :attr:`outputs`, or a dict by name when a dict was given: numpy arrays, LoDTensors
            where a result has a LoD. They own their memory.

        Raises:
            FeedError: an input is missing, unknown, or has the wrong rank, size, dtype or LoD. MemoryLimitError: it would
            take more than the limit. OperatorError: an operator failed.
        """
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            found = self._run(self._read.named(inputs[0]))
            return dict(zip(self._model.fetches, request_results(found, self._model.fetches)))
        return request_results(self._run(self._read.counted(inputs)), self._model.fetches)

    def __call__(self, *inputs: Any) -> Any:
        """As :meth:`run`; the value itself when the model has one result."""
        found = self.run(*inputs)
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    def _run(self, given: Sequence[Any]) -> list[Result]:
        values, lods = self._read.values(given)
        if self._budget is None:
            return self._within(values, lods)
        with self._budget.run(self._check_memory(self._budget, values, lods)):
            return self._within(values, lods)

    def _within(self, values: list[torch.Tensor], lods: list[LoD]) -> list[Result]:
        if self._threads is None:
            return self._computed(values, lods)
        with threads_set(self._threads):
            return self._computed(values, lods)

    def _computed(self, values: list[torch.Tensor], lods: list[LoD]) -> list[Result]:
        ctx = self._context()
        form = self._candidates.form(values, lods, ctx)
        try:
            direct = form.direct
            if direct is None:
                return form.run(values, lods, ctx)
            arrays = direct.run([array_of(v) for v in values])
            return [(y, NO_LOD) for y in arrays] if direct.keeps else [(y.copy(), NO_LOD) for y in arrays]
        except (EnforceNotMet, RuntimeError, ValueError) as error:
            native = self._model.native
            if form is native or not self._candidates.replaces():
                raise
            found = native.run(values, lods, ctx)  # what fails here too is the request's fault, not the engine's
            self._candidates.failed(form, values, lods, error)
            return found

    def _context(self) -> Context:
        """This thread's state."""
        ctx: Context | None = getattr(self._local, "ctx", None)
        if ctx is None:
            ctx = self._local.ctx = self._model.context()
            if self._model.profile:
                ctx.recorder = Times()
                self._times.append(ctx.recorder)
        return ctx

    def warmup(self, shapes: Any = None) -> LoadedModel:
        """Run once for each of `shapes`, so that plans are made, kernels compiled and engines chosen before requests come.

        Args:
            shapes: one request or a list of such: a dict of name -> shape (or array), a shape when there is one input, or a
                tuple of inputs as for :meth:`run`. An input with LoD is one sequence of that many rows. None: batch 1 of the
                declared shapes, 1 for other dims that vary.

        Returns:
            This model.
        """
        wanted = [None] if shapes is None else shapes if isinstance(shapes, list) and not _is_shape(shapes) else [shapes]
        for request in wanted:
            self._run(self._example(request))
        return self

    def _example(self, request: Any) -> list[Any]:
        model = self._model
        if request is None:
            request = {v.name: [d if d > 0 else 1 for d in v.shape] for v in model.vars}
        elif _is_shape(request):
            request = (request,)
        given = self._read.named(request) if isinstance(request, Mapping) else self._read.counted(list(request))
        return [np.zeros(list(x), dtype_name(v.dtype)) if _is_shape(x) else x for x, v in zip(given, model.vars)]

    # ---- what it is --------------------------------------------------------------------------
    @property
    def inputs(self) -> list[Port]:
        """What :meth:`run` takes, in order."""
        return [_port(v) for v in self._model.vars]

    @property
    def outputs(self) -> list[Port]:
        """What :meth:`run` returns, in order."""
        return [_port(v) for v in self._model.results if v is not None]

    @property
    def errors(self) -> dict[str, float]:
        """Errors on the calibration data of the forms in a reduced precision that were tried, by name."""
        return dict(self._errors)

    def engine_for(self, *inputs: Any) -> str:
        """The name of what runs for these inputs (choosing it, with engine="auto")."""
        named = len(inputs) == 1 and isinstance(inputs[0], Mapping)
        values, lods = self._read.values(self._read.named(inputs[0]) if named else self._read.counted(inputs))
        with threads_set(self._threads):
            return self._candidates.form(values, lods, self._context()).name

    def explain(self) -> str:
        """What passes did, what engines took and refused, and which candidate was chosen for which inputs."""
        lines = []
        work = self._model.native.work
        if work is not None:
            lines.append("passes: " + (", ".join(f"{n} {c}" for n, c in work.counts().items()) or "nothing to do"))
        for name, made in self._candidates.partitions.items():
            lines.append(f"{name}: {made.explain()}")
        lines += [f"{name}: error {error:.3g} on the calibration data" for name, error in self._errors.items()]
        lines += [choice.explain() for choice in list(self._candidates.choices.values()) if choice.milliseconds]
        return "\n".join(lines)

    def profile(self) -> str:
        """Time by operator type since the model was loaded with profile=True, of all threads."""
        if not self._model.profile:
            raise EnforceNotMet("profile: load the model with load(…, profile=True) to have its operators timed")
        total = Times()
        for times in list(self._times):
            total.add(times)
        return total.table()

    # ---- memory --------------------------------------------------------------------------------
    def memory(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Estimated bytes for a request of these shapes: parameters, engines' copies of them, values alive at a time."""
        missing = [name for name in self._model.feeds if name not in shapes]
        if missing or len(shapes) != len(self._model.feeds):
            self._read.named(shapes)
        return self._fixed() + memory.activations(self._model.native.program, self._model.fetches, shapes)

    def _fixed(self) -> int:
        """Bytes that stay between requests: parameters, and engines' copies of them."""
        return memory.weights(self._model) + sum(sub.size for form in self._forms() for sub in form.engines or ())

    def _forms(self) -> Iterable[Form]:
        candidates = self._candidates
        found = [c.form for c in candidates.choices.values()] + list(candidates.fixed.values())
        found += [p.form for p in candidates.partitions.values() if p.form is not None]
        return {id(form): form for form in found}.values()

    def _check_memory(self, budget: Budget, values: list[torch.Tensor], lods: list[LoD]) -> Any:
        """The kind of a request; MemoryLimitError when it would take more than there is."""
        kind = signature_of(values, lods)
        alive = budget.alive(kind)
        if alive is None:
            shapes = {name: part[:-2] for name, part in zip(self._model.feeds, kind)}
            alive = memory.activations(self._model.native.program, self._model.fetches, shapes)
            budget.keep(kind, alive)
        need = self._fixed() + alive + budget.beyond(kind, alive)
        if need > budget.limit:
            shapes_text = ", ".join(f"{n} {list(v.shape)}" for n, v in zip(self._model.feeds, values))
            raise MemoryLimitError(
                f"a request of {shapes_text} needs about {memory.text(need)}, "
                f"{memory.text(memory.weights(self._model))} of it parameters: more than "
                f"memory_limit={memory.text(budget.limit)}; use a smaller batch"
            )
        return kind

    def clone(self) -> LoadedModel:
        """Another one over the same parameters, plans and engines."""
        return LoadedModel(self._model, self._candidates, self._threads, self._budget, self._errors)


def load(
    path: str | os.PathLike[str],
    engine: str = "native",
    *,
    precision: str = "float32",
    calibration: Iterable[Any] | None = None,
    max_error: float | None = None,
    threads: int | None = None,
    memory_limit: int | None = None,
    profile: bool = False,
    optimize: bool = True,
    passes: Iterable[str] | None = None,
    remember: bool = True,
    gpu: int | None = None,
    model_filename: str | None = None,
    params_filename: str | None = None,
) -> LoadedModel:
    """Load a saved model.

    Args:
        path: a directory of ``fluid.io.save_inference_model``, its Program file, or an ONNX file (``*.onnx``).
        engine: "native" (kernels of our own), "onnxruntime", "openvino" (the parts they take, the rest native), "cuda",
            "tensorrt" (onnxruntime's providers), or "auto": the first request of each kind of inputs measures all that are
            here, compares their results with the native ones, and keeps the fastest. The choice is remembered on disk.
        precision: "bfloat16" or "int8" use that where `max_error` holds on `calibration`.
        calibration: requests as for :meth:`LoadedModel.run`: arrays, tuples of arrays, or dicts.
        max_error: largest difference of a result from the native float32 one's, relative to its largest value. With
            engine="auto" and no other precision it is what engines are held to (1e-3, and 0.02 where the model itself
            rounds to integers, when None), by the first request of each kind; OpenVINO may then compute in bfloat16 as well.
        threads: for the operators of one request; as torch is set when None.
        memory_limit: bytes for parameters, engines and one request at a time. A request that would take more is refused
            before it runs: by its estimate, and by what requests of its kind (or smaller ones) took beyond theirs. Pools
            are given back after every request, and OpenVINO compiles one form for all shapes.
        profile: time every operator, for :meth:`LoadedModel.profile`.
        optimize: run graph passes.
        passes: names of the passes that run, in order, instead of ``millstream.passes.pipelines.INFER``; nothing else is
            fused later. Engines get what they do to the parts that stay native.
        remember: read and write the choices of "auto" on disk.
        gpu: CUDA device; the CPU when None.
        model_filename, params_filename: names of the files in a directory, where they are not the usual ones.

    Raises:
        MissingFileError, FileFormatError: files missing or damaged. NotSupportedError: an engine is not here, or takes
        nothing of the model. AccuracyError: max_error does not hold. ValueError, TypeError: an argument is wrong.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"load: expected the path of a saved model, received {type(path).__name__}")
    _check_numbers(threads, memory_limit, max_error)
    if precision not in PRECISIONS:
        raise ValueError(f"load: precision must be one of {', '.join(PRECISIONS)}, received {precision!r}")
    if precision != "float32" and (calibration is None or max_error is None):
        raise ValueError(
            f"load: precision={precision!r} changes results: give calibration=[inputs, …] and max_error=…, the largest "
            "difference from float32 (relative to the largest value) that is allowed there"
        )
    if precision == "float32" and (calibration is not None or (max_error is not None and engine != "auto")):
        given = "calibration" if calibration is not None else "max_error"
        raise ValueError(f"load: {given}= is for precision='bfloat16' or 'int8' (max_error= for engine='auto' too)")
    if engine not in ("native", "auto"):
        engines.need(engine)
    device = device_of(gpu is not None, gpu or 0)
    names = _pass_names(passes, optimize)
    model = open_model(os.fspath(path), model_filename, params_filename, device, profile, optimize, names)
    options = engines.Options(threads=threads or torch.get_num_threads(), bounded=memory_limit is not None)
    fixed: dict[str, Form] = {}
    errors: dict[str, float] = {}
    if precision != "float32" and max_error is not None:
        requests = _requests(model, calibration or ())
        fixed, errors = reduced_forms(model, engine, options, precision, requests, max_error)
        if engine != "auto":
            engine = next(iter(fixed))
    candidates = Candidates(model, engine, options, fixed=fixed, remember=remember, max_error=max_error)
    budget = None if memory_limit is None else Budget(int(memory_limit))
    return LoadedModel(model, candidates, threads, budget, errors)


def _check_numbers(threads: Any, memory_limit: Any, max_error: Any) -> None:
    """TypeError, ValueError: what is no number, or not above 0."""
    for name, limit in (("threads", threads), ("memory_limit", memory_limit)):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, np.integer))):
            raise TypeError(f"load: {name} must be a whole number, received {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"load: {name} must be at least 1, received {limit}")
    if max_error is not None and (not isinstance(max_error, (int, float, np.floating)) or not max_error > 0):
        raise ValueError(f"load: max_error must be a number above 0, received {max_error!r}")


def _pass_names(passes: Iterable[str] | None, optimize: bool) -> tuple[str, ...]:
    """The passes to run; ValueError when they are not names, or are switched off; InvalidProgramError for unknown ones."""
    if passes is None:
        return pipelines.INFER
    names = (passes,) if isinstance(passes, str) else tuple(passes)
    if isinstance(passes, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"load: passes must be a list of names such as ['fuse_fc'], received {passes!r}")
    if names and not optimize:
        raise ValueError("load: optimize=False switches passes off; give passes= or that, not both")
    for name in names:
        find(name)
    return names


def _requests(model: Model, calibration: Iterable[Any]) -> list[Request]:
    read = Inputs(model)
    found = []
    if not isinstance(calibration, Iterable) or isinstance(calibration, (str, bytes, Mapping)):
        raise TypeError(f"load: calibration must be a list of requests, received {type(calibration).__name__}")
    for given in calibration:
        if isinstance(given, Mapping):
            found.append(read.values(read.named(given)))
        else:
            found.append(read.values(read.counted(given if isinstance(given, tuple) else (given,))))
    if not found:
        raise FeedError("load: calibration is empty; give at least one batch of inputs")
    return found


def open_model(
    path: str, model_filename: str | None, params_filename: str | None, device: torch.device, profile: bool = False,
    optimize: bool = True, pass_names: Sequence[str] = pipelines.INFER,
) -> Model:  # fmt: skip
    """The Model in a directory of save_inference_model (or its Program file), or in an ONNX file; errors as :func:`load`."""
    if path.endswith(".onnx") and os.path.isfile(path):
        return from_onnx(path, device, profile, optimize, pass_names)
    return from_path(path, model_filename, params_filename, device, profile, optimize, pass_names)


def _port(var: Variable) -> Port:
    dtype = dtype_name(var.dtype) if var.has_dtype else ""
    return Port(var.name, list(var.shape) if var.has_shape else [], dtype, var.lod_level)


def _is_shape(value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    return all(isinstance(d, (int, np.integer)) and not isinstance(d, bool) for d in value)
