"""Inference on saved models by Fluid's names: a config, a predictor, and tensors in and out."""

from millstream.inference.config import (
    AnalysisConfig,
    MkldnnQuantizerConfig,
    NativeConfig,
    PaddlePassBuilder,
    PassStrategy,
)
from millstream.inference.predictor import (
    AnalysisPredictor,
    NativePaddlePredictor,
    PaddlePredictor,
    create_paddle_predictor,
)
from millstream.inference.tensors import (
    PaddleBuf,
    PaddleDType,
    PaddlePlace,
    PaddleTensor,
    ZeroCopyTensor,
    paddle_dtype_size,
    paddle_tensor_to_bytes,
)

__all__ = [
    "AnalysisConfig",
    "AnalysisPredictor",
    "MkldnnQuantizerConfig",
    "NativeConfig",
    "NativePaddlePredictor",
    "PaddleBuf",
    "PaddleDType",
    "PaddlePassBuilder",
    "PaddlePlace",
    "PaddlePredictor",
    "PaddleTensor",
    "PassStrategy",
    "ZeroCopyTensor",
    "create_paddle_predictor",
    "paddle_dtype_size",
    "paddle_tensor_to_bytes",
]
