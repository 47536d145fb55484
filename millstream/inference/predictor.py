"""Predictors: a loaded Program with its parameters in a Scope of its own, run by one Plan."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from millstream.errors import EnforceNotMet, FeedError, MissingFileError
from millstream.files.atomic import write_bytes
from millstream.files.source import Source
from millstream.inference.config import AnalysisConfig, NativeConfig, check_gpu
from millstream.inference.tensors import PaddleTensor, ZeroCopyTensor, check_lod
from millstream.ir import walk
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ir.proto import program_from_bytes, program_to_bytes
from millstream.ir.types import VarType
from millstream.ops._values import TORCH_DTYPE, LoD
from millstream.runtime import stored
from millstream.runtime.lower import Options
from millstream.runtime.plan import Context, Plan
from millstream.runtime.scope import Scope

_NO_DATA = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER, VarType.RAW})


class Model:
    """What clones of a predictor share: the Program, the Scope with its parameters, and the Plans."""

    def __init__(self, program: Program, source: str, device: torch.device, profile: bool) -> None:
        self.program = program
        self.scope = Scope()
        self.device = device
        self.profile = profile
        self.feeds, self.fetches = walk.ends(program, source)
        block = program.global_block()
        self.vars = [block.var(name) for name in self.feeds]
        self.dtypes = [TORCH_DTYPE.get(v.dtype) if v.has_dtype else None for v in self.vars]
        self.plans: dict[tuple[bool, ...], Plan] = {}

    def persistables(self) -> list[Any]:
        return list({v.name: v for v in self.program.list_vars() if v.persistable and v.type not in _NO_DATA}.values())

    def plan(self, key: tuple[bool, ...]) -> Plan:
        """The Plan for inputs of which `key` says whether they have a LoD."""
        found = self.plans.get(key)
        if found is None:
            options = Options(False, False, self.profile, self.device)
            found = self.plans[key] = Plan(
                self.program, dict(zip(self.feeds, key)), self.fetches, self.scope, options
            )
        return found


class PaddlePredictor:
    """Runs one model; predictors made by :meth:`clone` share its parameters and may run in other threads."""

    def __init__(self, model: Model, by_name: bool, threads: int | None) -> None:
        self._model = model
        self._by_name = by_name
        self._threads = threads
        self._device = model.device
        self._index = {name: i for i, name in enumerate(model.feeds)}
        self._inputs: list[tuple[torch.Tensor, LoD] | None] = [None] * len(model.feeds)
        self._outputs: list[tuple[Any, LoD]] | None = None
        rng = torch.Generator(device=model.device)
        rng.manual_seed(int(torch.randint(2**62, (1,)).item()))
        self._ctx = Context(model.scope, rng, None, model.device)
        if model.profile:
            self._ctx.recorder = _Times()

    # ---- running -----------------------------------------------------------------------------
    def run(self, inputs: Sequence[PaddleTensor]) -> list[PaddleTensor]:
        """Compute the results for `inputs`, which stand in the order of the model's feeds (or carry their names).

        Raises FeedError: their number, names, dtypes, ranks or LoDs are not what the model takes.
        """
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
        plan = self._model.plan(tuple([bool(lod) for lod in lods]))
        threads = self._threads
        if threads is None or threads == torch.get_num_threads():
            return plan.run(values, lods, self._ctx)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return plan.run(values, lods, self._ctx)
        finally:
            torch.set_num_threads(before)

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
        return type(self)._made(self._model, self._by_name, self._threads)

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
        if ctx is not None and isinstance(ctx.recorder, _Times):
            ctx.recorder.print()


class AnalysisPredictor(PaddlePredictor):
    """A predictor made from an AnalysisConfig."""

    def __init__(self, config: AnalysisConfig) -> None:
        model = _load(
            config._model_dir, config._prog, config._params, config.use_gpu(), config.gpu_device_id(), config._profile
        )
        super().__init__(model, config._specify_input_names, config._threads)


class NativePaddlePredictor(PaddlePredictor):
    """A predictor made from a NativeConfig."""

    def __init__(self, config: NativeConfig) -> None:
        model = _load(config.model_dir, config.prog_file, config.param_file, config.use_gpu, config.device, False)
        super().__init__(model, config.specify_input_name, config._threads)


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


def _load(
    folder: str, prog: str | bytes, params: str | bytes, use_gpu: bool, gpu: int, profile: bool
) -> Model:
    if use_gpu:
        check_gpu(gpu)
    device = torch.device("cuda", gpu) if use_gpu else torch.device("cpu")
    if not folder and not (prog and params):
        raise EnforceNotMet("the config names no model: either model_dir or (prog_file, params_file) should be set")
    if isinstance(prog, bytes):
        data, source = prog, "<program buffer>"
    else:
        source = os.path.join(folder, "__model__") if folder else prog
        if not os.path.isfile(source):
            raise MissingFileError(
                f"Cannot open file {source}: there is no such program file. A directory with another name for it "
                "is given as AnalysisConfig(prog_file, params_file)"
            )
        with open(source, "rb") as fh:
            data = fh.read()
    model = Model(program_from_bytes(data, source), source, device, profile)
    variables = model.persistables()
    if folder:
        values = stored.read_separate(folder, variables, device)
    elif isinstance(params, bytes):
        values = stored.read_combined(Source(params, "<parameter buffer>"), variables, device)
    else:
        values = stored.combined_file(params, variables, device)
    stored.assign(model.scope, values)
    return model


def _as_array(value: Any) -> np.ndarray:
    """A new array of a fetched tensor."""
    if not isinstance(value, torch.Tensor):
        raise EnforceNotMet(f"predictor: a result is a {type(value).__name__}; only tensors can be results")
    if value.dtype is torch.bfloat16:
        value = value.float()
    return np.array(value.cpu().numpy(), order="C")


class _Times:
    """Time per operator type."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.stack: list[float] = []

    def enter(self, op: Operator) -> None:
        self.stack.append(time.perf_counter())

    def leave(self, op: Operator, outs: tuple[Any, ...]) -> None:
        spent = time.perf_counter() - self.stack.pop()
        self.seconds[op.type] = self.seconds.get(op.type, 0.0) + spent
        self.calls[op.type] = self.calls.get(op.type, 0) + 1

    def print(self) -> None:
        total = sum(self.seconds.values()) or 1.0
        lines = [f"{'operator':<32}{'calls':>8}{'total ms':>12}{'share':>8}"]
        for name, spent in sorted(self.seconds.items(), key=lambda item: -item[1]):
            lines.append(f"{name:<32}{self.calls[name]:>8}{spent * 1e3:>12.3f}{spent / total:>8.1%}")
        sys.stderr.write("\n".join(lines) + "\n")
