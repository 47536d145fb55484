"""What a predictor is made from: AnalysisConfig and NativeConfig."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Any

import torch

from millstream.errors import NotSupportedError
from millstream.inference import engines
from millstream.passes import find, pipelines

_INT8 = "MKL-DNN's quantiser is not here; millstream.load(dir, precision='int8', calibration=batches, max_error=…) is"


class PaddlePassBuilder:
    """An ordered list of pass names."""

    def __init__(self, passes: Iterable[str] = ()) -> None:
        self._passes = list(passes)
        self._analysis: list[str] = []
        self._debug = False

    def all_passes(self) -> list[str]:
        return list(self._passes)

    def analysis_passes(self) -> list[str]:
        return list(self._analysis)

    def append_pass(self, name: str) -> None:
        self._passes.append(name)

    def append_analysis_pass(self, name: str) -> None:
        self._analysis.append(name)

    def insert_pass(self, index: int, name: str) -> None:
        self._passes.insert(index, name)

    def delete_pass(self, name: str | int) -> None:
        """Remove a pass by name (or position); a name that is not in the list changes nothing."""
        if isinstance(name, int):
            del self._passes[name]
        else:
            self._passes = [p for p in self._passes if p != name]

    def set_passes(self, passes: Sequence[str]) -> None:
        self._passes = list(passes)

    def known_passes(self) -> list[str]:
        """The list, every pass looked up; InvalidProgramError for a name that is none."""
        for name in self._passes:
            find(name)
        return list(self._passes)

    def turn_on_debug(self) -> None:
        """Have what each pass did, and refused, printed to stderr when the predictor is made."""
        self._debug = True

    def debug_string(self) -> str:
        return "Passes to apply:\n" + "".join(f"  - {name}\n" for name in self._passes)


class PassStrategy(PaddlePassBuilder):
    """The list of an AnalysisConfig: at first the passes of ``millstream.passes.pipelines.INFER``."""

    def __init__(self, passes: Iterable[str] = pipelines.INFER) -> None:
        super().__init__(passes)

    def enable_mkldnn(self) -> None:
        """Accepted: torch's kernels use oneDNN where it is faster, without passes."""

    def enable_mkldnn_quantizer(self) -> None:
        raise NotSupportedError(f"PassStrategy.enable_mkldnn_quantizer: {_INT8}")

    def enable_cudnn(self) -> None:
        """Accepted: torch's CUDA kernels use cuDNN without passes."""

    def use_gpu(self) -> bool:
        return False


class MkldnnQuantizerConfig:
    """Settings of int8 quantisation; kept, and refused by :meth:`AnalysisConfig.enable_quantizer`."""

    def __init__(self, other: MkldnnQuantizerConfig | None = None) -> None:
        self.batch_size: int = 1 if other is None else other.batch_size
        self.data: Any = None if other is None else other.data
        self.op_types: set[str] = set() if other is None else set(other.op_types)

    def set_quant_data(self, data: Any) -> None:
        self.data = data

    def set_quant_batch_size(self, batch_size: int) -> None:
        self.batch_size = int(batch_size)

    def set_enabled_op_types(self, op_types: Iterable[str]) -> None:
        self.op_types = set(op_types)


class NativeConfig:
    """The plainer config: attributes only.

    Attributes:
        model_dir: directory of a model with separate parameter files; or
        prog_file, param_file: Program and combined parameters.
        specify_input_name: inputs are matched by name.
        use_gpu, device, fraction_of_gpu_memory: as AnalysisConfig.enable_use_gpu.
    """

    def __init__(self) -> None:
        self.model_dir = ""
        self.prog_file = ""
        self.param_file = ""
        self.specify_input_name = False
        self.use_gpu = False
        self.device = 0
        self.fraction_of_gpu_memory = -1.0
        self._threads: int | None = None

    def set_cpu_math_library_num_threads(self, number: int) -> None:
        self._threads = _threads(number)

    def cpu_math_library_num_threads(self) -> int:
        return self._threads or 1


class Precision(IntEnum):
    """Number formats of engines."""

    Float32 = 0
    Int8 = 1
    Half = 2

    __str__ = Enum.__str__


class AnalysisConfig:
    """Which model to load, and how to run it.

    ``AnalysisConfig(model_dir)`` (``__model__`` and a file per parameter), ``AnalysisConfig(prog_file, params_file)``,
    ``AnalysisConfig(other)`` (a copy) or ``AnalysisConfig()`` with :meth:`set_model` or :meth:`set_model_buffer`.
    """

    Precision = Precision
    Float32, Half, Int8 = Precision.Float32, Precision.Half, Precision.Int8

    def __init__(self, model: AnalysisConfig | str | None = None, params: str | None = None) -> None:
        self._model_dir = ""
        self._prog: str | bytes = ""
        self._params: str | bytes = ""
        self._gpu: int | None = None
        self._gpu_pool_mb = 100
        self._threads: int | None = None
        self._ir_optim = True
        self._memory_optim = False
        self._feed_fetch_ops = True
        self._specify_input_names = False
        self._glog = True
        self._profile = False
        self._mkldnn = False
        self._mkldnn_ops: set[str] = set()
        self._mkldnn_cache = 0
        self._cache_dir = ""
        self._trt: dict[str, str] | None = None
        self._passes = PassStrategy()
        if isinstance(model, AnalysisConfig):
            self.__dict__.update(model.__dict__)
            self._passes = copy.deepcopy(model._passes)
            self._trt = None if model._trt is None else dict(model._trt)
            self._mkldnn_ops = set(model._mkldnn_ops)
        elif model is not None:
            self.set_model(*((model,) if params is None else (model, params)))

    # ---- the model ---------------------------------------------------------------------------
    def set_model(self, model: str, params: str | None = None) -> None:
        """A model directory; or Program file and combined parameter file."""
        for value in (model, params):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"AnalysisConfig: a model is given by paths (str), received {type(value).__name__}")
        if params is None:
            self._model_dir, self._prog, self._params = model, "", ""
        else:
            self._model_dir, self._prog, self._params = "", model, params

    def set_prog_file(self, path: str) -> None:
        self._prog = path

    def set_params_file(self, path: str) -> None:
        self._params = path

    def set_model_buffer(self, prog: bytes | str, prog_size: int, params: bytes | str, params_size: int) -> None:
        """The contents of the Program file and of the combined parameter file."""
        self._model_dir = ""
        self._prog, self._params = _buffer(prog, prog_size, "program"), _buffer(params, params_size, "parameter")

    def model_dir(self) -> str:
        return self._model_dir

    def prog_file(self) -> str:
        return self._prog if isinstance(self._prog, str) else ""

    def params_file(self) -> str:
        return self._params if isinstance(self._params, str) else ""

    def model_from_memory(self) -> bool:
        return isinstance(self._prog, bytes)

    # ---- devices and threads -------------------------------------------------------------------
    def enable_use_gpu(self, memory_pool_init_size_mb: int, device_id: int = 0) -> None:
        """Run on a CUDA device; NotSupportedError where torch has none. The pool's size is kept, torch has its own."""
        check_gpu(device_id)
        self._gpu, self._gpu_pool_mb = int(device_id), int(memory_pool_init_size_mb)

    def disable_gpu(self) -> None:
        self._gpu = None

    def use_gpu(self) -> bool:
        return self._gpu is not None

    def gpu_device_id(self) -> int:
        return self._gpu or 0

    def memory_pool_init_size_mb(self) -> int:
        return self._gpu_pool_mb

    def fraction_of_gpu_memory_for_pool(self) -> float:
        return 0.0

    def set_cpu_math_library_num_threads(self, number: int) -> None:
        """Threads of the kernels of this predictor's runs; by default torch's setting stays."""
        self._threads = _threads(number)

    def cpu_math_library_num_threads(self) -> int:
        return self._threads or 1

    # ---- switches ----------------------------------------------------------------------------
    def switch_ir_optim(self, x: int | bool = True) -> None:
        """Whether graph passes may change the Program before it runs (results stay the same)."""
        self._ir_optim = bool(x)

    def ir_optim(self) -> bool:
        return self._ir_optim

    def switch_ir_debug(self, x: int | bool = True) -> None:
        """Whether what the passes did is printed to stderr when the predictor is made."""
        self._passes._debug = bool(x)

    def enable_memory_optim(self) -> None:
        """Accepted: values are always freed when they die."""
        self._memory_optim = True

    def switch_use_feed_fetch_ops(self, x: int | bool = True) -> None:
        """False for :meth:`AnalysisPredictor.zero_copy_run`; both ways of running work here either way."""
        self._feed_fetch_ops = bool(x)

    def use_feed_fetch_ops_enabled(self) -> bool:
        return self._feed_fetch_ops

    def switch_specify_input_names(self, x: bool = True) -> None:
        """Whether the PaddleTensors given to run are matched by name instead of by position."""
        self._specify_input_names = bool(x)

    def specify_input_name(self) -> bool:
        return self._specify_input_names

    def enable_profile(self) -> None:
        """Time every operator; the predictor prints a table when it is deleted."""
        self._profile = True

    def disable_glog_info(self) -> None:
        """Accepted: nothing is logged while a model is loaded."""
        self._glog = False

    def glog_info_disabled(self) -> bool:
        return not self._glog

    def pass_builder(self) -> PassStrategy:
        """The list of passes; may be edited."""
        return self._passes

    def delete_pass(self, name: str) -> None:
        self._passes.delete_pass(name)

    def set_optim_cache_dir(self, path: str) -> None:
        """Where TensorRT keeps engines that it built (enable_tensorrt_engine with `use_static`)."""
        self._cache_dir = path

    # ---- engines -----------------------------------------------------------------------------
    def enable_mkldnn(self) -> None:
        """Accepted: torch's CPU kernels use oneDNN where it is faster."""
        self._mkldnn = True

    def mkldnn_enabled(self) -> bool:
        return self._mkldnn

    def set_mkldnn_op(self, op_types: Iterable[str]) -> None:
        self._mkldnn_ops = set(op_types)

    def set_mkldnn_cache_capacity(self, capacity: int = 0) -> None:
        self._mkldnn_cache = int(capacity)

    def enable_quantizer(self) -> None:
        raise NotSupportedError(f"AnalysisConfig.enable_quantizer: {_INT8}")

    def quantizer_config(self) -> MkldnnQuantizerConfig:
        raise NotSupportedError(f"AnalysisConfig.quantizer_config: {_INT8}")

    def enable_tensorrt_engine(
        self,
        workspace_size: int = 1 << 20,
        max_batch_size: int = 1,
        min_subgraph_size: int = 3,
        precision_mode: int = Precision.Float32,
        use_static: bool = False,
        use_calib_mode: bool = True,
    ) -> None:
        """Run what TensorRT takes on it, through onnxruntime. Written without such a machine at hand and never run.

        Args:
            workspace_size: bytes. precision_mode: of AnalysisConfig.Precision. use_static: keep built engines in the
                directory of set_optim_cache_dir. max_batch_size, min_subgraph_size, use_calib_mode: must be accepted; the
                provider decides by itself.

        Raises NotSupportedError: this onnxruntime has no TensorRT, or the precision is Int8.
        """
        reason = engines.why_not("tensorrt")
        if reason is not None:
            raise NotSupportedError(f"AnalysisConfig.enable_tensorrt_engine: {reason}")
        if Precision(precision_mode) is Precision.Int8:
            raise NotSupportedError(
                "AnalysisConfig.enable_tensorrt_engine: int8 needs ranges; millstream.load(precision='int8', …) has them"
            )
        settings = {"trt_max_workspace_size": str(int(workspace_size))}
        settings["trt_fp16_enable"] = str(int(Precision(precision_mode) is Precision.Half))
        if use_static:
            settings.update(trt_engine_cache_enable="1", trt_engine_cache_path=self._cache_dir or ".")
        self._trt = settings

    def tensorrt_engine_enabled(self) -> bool:
        return self._trt is not None

    def set_trt_dynamic_shape_info(
        self,
        min_input_shape: Mapping[str, Sequence[int]] = {},
        max_input_shape: Mapping[str, Sequence[int]] = {},
        optim_input_shape: Mapping[str, Sequence[int]] = {},
        disable_trt_plugin_fp16: bool = False,
    ) -> None:
        """Shapes that TensorRT is built for, by input: between `min` and `max`, fastest at `optim`. Never run.

        Raises NotSupportedError: TensorRT is not enabled.
        """
        if self._trt is None:
            raise NotSupportedError("AnalysisConfig.set_trt_dynamic_shape_info: TensorRT is not enabled")
        for key, shapes in (("min", min_input_shape), ("max", max_input_shape), ("opt", optim_input_shape)):
            text = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
            self._trt[f"trt_profile_{key}_shapes"] = text
        if disable_trt_plugin_fp16:
            self._trt["trt_fp16_enable"] = "0"

    def enable_lite_engine(
        self,
        zero_copy: Any = False,
        precision_mode: Any = Precision.Float32,
        passes_filter: Sequence[str] = (),
        ops_filter: Sequence[str] = (),
    ) -> None:
        raise NotSupportedError("AnalysisConfig.enable_lite_engine: the Lite engine is not available here")

    def lite_engine_enabled(self) -> bool:
        return False

    def to_native_config(self) -> NativeConfig:
        """The same model and device as a NativeConfig."""
        made = NativeConfig()
        made.model_dir, made.prog_file, made.param_file = self._model_dir, self.prog_file(), self.params_file()
        made.use_gpu, made.device = self.use_gpu(), self.gpu_device_id()
        made.specify_input_name = self._specify_input_names
        made._threads = self._threads
        return made


def check_gpu(device_id: int) -> None:
    """NotSupportedError unless torch can use that CUDA device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= device_id < count:
        raise NotSupportedError(
            f"enable_use_gpu: device {device_id} was asked for and torch has {count} CUDA devices here; "
            "call disable_gpu(), or install a CUDA build of torch"
        )


def _threads(number: int) -> int:
    if int(number) < 1:
        raise ValueError(f"set_cpu_math_library_num_threads: expected at least 1, received {number}")
    return int(number)


def _buffer(data: bytes | str, size: int, what: str) -> bytes:
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)
    if size > len(raw):
        raise ValueError(f"set_model_buffer: the {what} buffer has {len(raw)} bytes, not {size}")
    return raw[:size]
