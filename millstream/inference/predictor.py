"""Predictors: a loaded Program with its parameters in a Scope of its own, run by one Plan."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from millstream.errors import EnforceNotMet, FeedError, NotSupportedError
from millstream.files.atomic import write_bytes
from millstream.inference import engines
from millstream.inference.config import AnalysisConfig, NativeConfig
from millstream.inference.loading import device_of, load_model
from millstream.inference.model import Model, threads_set
from millstream.inference.partition import partition
from millstream.inference.profile import Times
from millstream.inference.tensors import PaddleTensor, ZeroCopyTensor, check_lod
from millstream.ir.program import Program
from millstream.ir.proto import program_to_bytes
from millstream.ops._values import LoD
from millstream.runtime import stored
from millstream.runtime.scope import Scope


class _ModelDir:
    """The config that every kind of predictor understands (``PaddlePredictor.Config``)."""

    def __init__(self) -> None:
        self.model_dir = ""


class PaddlePredictor:
    """Runs one model; predictors made by :meth:`clone` share its parameters and may run in other threads.

    A predictor holds its inputs and results, so it serves one thread at a time.
    """

    Config = _ModelDir

    def __init__(self, model: Model, by_name: bool, threads: int | None) -> None:
        self._model = model
        self._form = model.native
        self._by_name = by_name
        self._threads = threads
        self._device = model.device
        self._index = {name: i for i, name in enumerate(model.feeds)}
        self._inputs: list[tuple[torch.Tensor, LoD] | None] = [None] * len(model.feeds)
        self._outputs: list[tuple[Any, LoD]] | None = None
        self._ctx = model.context()
        if model.profile:
            self._ctx.recorder = Times()

    # ---- running -----------------------------------------------------------------------------
    def run(self, inputs: Sequence[PaddleTensor]) -> list[PaddleTensor]:
        """Compute the results for `inputs`, which stand in the order of the model's feeds (or carry their names).

        Raises FeedError: their number, names, dtypes, ranks or LoDs are not what the model takes. TypeError: they are no
        PaddleTensors.
        """
        if not isinstance(inputs, (list, tuple)) or not all(isinstance(t, PaddleTensor) for t in inputs):
            kinds = [type(t).__name__ for t in inputs] if isinstance(inputs, (list, tuple)) else type(inputs).__name__
            raise TypeError(
                f"predictor: run takes a list of PaddleTensors, received {kinds}; wrap arrays by PaddleTensor(array), or "
                "give them to millstream.load(dir).run(array)"
            )
        values, lods = [], []
        for i, tensor in enumerate(self._ordered(inputs) if self._by_name else self._counted(inputs)):
            t = torch.from_numpy(tensor._value())
            lod = tensor._lod
            self._check(i, t, lod)
            values.append(t if self._device.type == "cpu" else t.to(self._device))
            lods.append(lod)
        self._outputs = results = self._execute(values, lods)
        return [
            PaddleTensor._of(name, _as_array(value), lod)
            for name, (value, lod) in zip(self._model.fetches, results)
        ]

    def zero_copy_run(self) -> bool:
        """Compute from what the input tensors hold; the output tensors then hold the results. Returns True."""
        values, lods = [], []
        for i, held in enumerate(self._inputs):
            if held is None:
                raise FeedError(f"zero_copy_run: input {self._model.feeds[i]!r} was not set (copy_from_cpu)")
            self._check(i, *held)
            values.append(held[0])
            lods.append(held[1])
        self._outputs = self._execute(values, lods)
        return True

    def _execute(self, values: list[torch.Tensor], lods: list[LoD]) -> list[tuple[Any, LoD]]:
        with threads_set(self._threads):
            return self._form.run(values, lods, self._ctx)

    # ---- inputs ------------------------------------------------------------------------------
    def _counted(self, inputs: Sequence[PaddleTensor]) -> Sequence[PaddleTensor]:
        if len(inputs) != len(self._inputs):
            raise FeedError(
                f"predictor: the model takes {len(self._inputs)} inputs ({', '.join(self._model.feeds)}), "
                f"received {len(inputs)}"
            )
        return inputs

    def _ordered(self, inputs: Sequence[PaddleTensor]) -> list[PaddleTensor]:
        found: list[Any] = [None] * len(self._inputs)
        for tensor in self._counted(inputs):
            i = self._index.get(tensor.name)
            if i is None or found[i] is not None:
                what = "is given twice" if i is not None else "is no input of the model"
                raise FeedError(f"predictor: {tensor.name!r} {what}; its inputs are {', '.join(self._model.feeds)}")
            found[i] = tensor
        return found

    def _check(self, i: int, t: torch.Tensor, lod: LoD) -> None:
        want = self._model.dtypes[i]
        var = self._model.vars[i]
        if want is not None and t.dtype is not want:
            raise FeedError(
                f"predictor: input {var.describe()}: received {str(t.dtype).removeprefix('torch.')} of shape "
                f"{list(t.shape)}; convert the array with .astype({str(want).removeprefix('torch.')!r})"
            )
        if var.has_shape and len(var.shape) != t.dim():
            raise FeedError(f"predictor: input {var.describe()}: received rank {t.dim()} (shape {list(t.shape)})")
        if lod:
            check_lod(var.name, lod, t.shape[0] if t.dim() else 0)

    # ---- names and tensors -------------------------------------------------------------------
    def get_input_names(self) -> list[str]:
        return list(self._model.feeds)

    def get_output_names(self) -> list[str]:
        return list(self._model.fetches)

    def get_input_tensor(self, name: str) -> ZeroCopyTensor:
        """The input `name`; EnforceNotMet when the model has none of that name."""
        i = self._index.get(name)
        if i is None:
            raise EnforceNotMet(f"no input called {name!r}; the model's inputs are {', '.join(self._model.feeds)}")
        return ZeroCopyTensor(self, name, i, True)

    def get_output_tensor(self, name: str) -> ZeroCopyTensor:
        """The output `name`; EnforceNotMet when the model has none of that name."""
        if name not in self._model.fetches:
            raise EnforceNotMet(f"no output called {name!r}; the model's outputs are {', '.join(self._model.fetches)}")
        return ZeroCopyTensor(self, name, self._model.fetches.index(name), False)

    def get_input_tensor_shape(self) -> dict[str, list[int]]:
        """Declared shapes by input name; -1 is a dimension that may vary."""
        return {v.name: list(v.shape) for v in self._model.vars}

    # ---- the rest ------------------------------------------------------------------------------
    def clone(self) -> PaddlePredictor:
        """Another predictor over the same parameters, with inputs and outputs of its own."""
        made = type(self)._made(self._model, self._by_name, self._threads)
        made._form = self._form
        return made

    @classmethod
    def _made(cls, model: Model, by_name: bool, threads: int | None) -> PaddlePredictor:
        made = cls.__new__(cls)
        PaddlePredictor.__init__(made, model, by_name, threads)
        return made

    def clear_intermediate_tensor(self) -> None:
        """Forget the results of the last run (values in between are freed while it runs)."""
        self._outputs = None

    def get_serialized_program(self) -> bytes:
        """The Program as ProgramDesc bytes."""
        return program_to_bytes(self._model.program)

    def program(self) -> Program:
        return self._model.program

    def scope(self) -> Scope:
        return self._model.scope

    def SaveOptimModel(self, dir: str) -> None:
        """Write the Program and its parameters as ``model`` and ``params`` (combined) into `dir`."""
        write_bytes(os.path.join(dir, "model"), self.get_serialized_program())
        names = [v.name for v in self._model.persistables()]
        stored.save_combined(self._model.scope, os.path.join(dir, "params"), names)

    def __del__(self) -> None:
        ctx = getattr(self, "_ctx", None)
        if ctx is not None and isinstance(ctx.recorder, Times):
            sys.stderr.write(ctx.recorder.table())


class AnalysisPredictor(PaddlePredictor):
    """A predictor made from an AnalysisConfig."""

    def __init__(self, config: AnalysisConfig) -> None:
        self._take(config)

    def _take(self, config: AnalysisConfig) -> None:
        device = device_of(config.use_gpu(), config.gpu_device_id())
        model = load_model(
            config._model_dir, config._prog, config._params, device, config._profile, config.ir_optim(),
            config._passes.known_passes(),
        )  # fmt: skip
        super().__init__(model, config._specify_input_names, config._threads)
        if config._passes._debug and self._form.work is not None:
            sys.stderr.write(self._form.work.explain() + "\n")
        if config._trt is not None:
            options = engines.Options(config._threads or torch.get_num_threads(), settings=config._trt)
            self._form = partition(model, "tensorrt", options).form or model.native

    # ---- names that 1.8.5 shows and its own loading calls ------------------------------------
    def init(self, scope: Scope | None) -> bool:
        """Take over the parameters that `scope` holds (None: as loaded). Returns True.

        Raises UninitializedError: `scope` lacks a parameter; nothing has changed then.
        """
        if scope is not None:
            names = [v.name for v in self._model.persistables()]
            stored.assign(self._model.scope, {name: stored.value_of(scope, name) for name in names})
            self.optimize_inference_program()
        return True

    def create_feed_fetch_var(self, scope: Scope) -> None:
        """Make the variables ``feed`` and ``fetch`` in `scope`."""
        for name in ("feed", "fetch"):
            scope.var(name)

    def prepare_feed_fetch(self) -> None:
        """Read the names of inputs and results out of the Program again."""
        self._index = {name: i for i, name in enumerate(self._model.feeds)}

    def optimize_inference_program(self) -> None:
        """Run the passes again, over the parameters as they are now."""
        self._model.forget_forms()
        self._form = self._model.native

    def prepare_argument(self) -> None:
        raise NotSupportedError("AnalysisPredictor.prepare_argument: passes have no Argument here; see pass_builder()")

    def analysis_argument(self) -> None:
        raise NotSupportedError("AnalysisPredictor.analysis_argument: passes have no Argument here; see pass_builder()")

    def mkldnn_quantize(self) -> bool:
        raise NotSupportedError(
            "AnalysisPredictor.mkldnn_quantize: use millstream.load(dir, precision='int8', calibration=batches, max_error=…)"
        )


class NativePaddlePredictor(PaddlePredictor):
    """A predictor made from a NativeConfig."""

    def __init__(self, config: NativeConfig) -> None:
        device = device_of(config.use_gpu, config.device)
        model = load_model(config.model_dir, config.prog_file, config.param_file, device, optimize=False)
        super().__init__(model, config.specify_input_name, config._threads)

    def init(self, scope: Scope | None) -> bool:
        """Take over the parameters that `scope` holds (None: as loaded). Returns True; errors as AnalysisPredictor.init."""
        if scope is not None:
            names = [v.name for v in self._model.persistables()]
            stored.assign(self._model.scope, {name: stored.value_of(scope, name) for name in names})
        return True


def create_paddle_predictor(config: AnalysisConfig | NativeConfig) -> PaddlePredictor:
    """Load the model that `config` names.

    Raises MissingFileError, FileFormatError: files missing or damaged; UnknownOperatorError: an operator is unknown.
    """
    if isinstance(config, AnalysisConfig):
        return AnalysisPredictor(config)
    if isinstance(config, NativeConfig):
        return NativePaddlePredictor(config)
    raise TypeError(
        f"create_paddle_predictor takes an AnalysisConfig or a NativeConfig, received {type(config).__name__}"
    )


def _as_array(value: Any) -> np.ndarray:
    """A new array of a fetched tensor."""
    if not isinstance(value, torch.Tensor):
        raise EnforceNotMet(f"predictor: a result is a {type(value).__name__}; only tensors can be results")
    if value.dtype is torch.bfloat16:
        value = value.float()
    return np.array(value.cpu().numpy(), order="C")
