"""``fluid.dygraph``: eager mode."""

from millstream.fluid.dygraph import (
    backward_strategy as backward_strategy,
)
from millstream.fluid.dygraph import (
    base as base,
)
from millstream.fluid.dygraph import (
    checkpoint as checkpoint,
)
from millstream.fluid.dygraph import (
    container as container,
)
from millstream.fluid.dygraph import (
    dygraph_to_static as dygraph_to_static,
)
from millstream.fluid.dygraph import (
    jit as jit,
)
from millstream.fluid.dygraph import (
    layer_object_helper as layer_object_helper,
)
from millstream.fluid.dygraph import (
    layers as layers,
)
from millstream.fluid.dygraph import (
    learning_rate_scheduler as learning_rate_scheduler,
)
from millstream.fluid.dygraph import (
    math_op_patch,
)
from millstream.fluid.dygraph import (
    nn as nn,
)
from millstream.fluid.dygraph import (
    parallel as parallel,
)
from millstream.fluid.dygraph import (
    parallel_helper as parallel_helper,
)
from millstream.fluid.dygraph import (
    static_runner as static_runner,
)
from millstream.fluid.dygraph import (
    tracer as tracer,
)
from millstream.fluid.dygraph.backward_strategy import BackwardStrategy
from millstream.fluid.dygraph.base import (
    disable_dygraph,
    disable_imperative,
    enable_dygraph,
    enable_imperative,
    enabled,
    grad,
    guard,
    no_grad,
    to_variable,
)
from millstream.fluid.dygraph.checkpoint import load_dygraph, save_dygraph
from millstream.fluid.dygraph.container import LayerList, ParameterList, Sequential
from millstream.fluid.dygraph.dygraph_to_static import ProgramTranslator
from millstream.fluid.dygraph.jit import TracedLayer, declarative, dygraph_to_static_func
from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.dygraph.learning_rate_scheduler import (
    CosineDecay,
    ExponentialDecay,
    InverseTimeDecay,
    LambdaDecay,
    LinearLrWarmup,
    MultiStepDecay,
    NaturalExpDecay,
    NoamDecay,
    PiecewiseDecay,
    PolynomialDecay,
    ReduceLROnPlateau,
    StepDecay,
)
from millstream.fluid.dygraph.nn import (
    NCE,
    BatchNorm,
    BCELoss,
    BilinearTensorProduct,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
    Dropout,
    Embedding,
    GroupNorm,
    GRUUnit,
    InstanceNorm,
    L1Loss,
    LayerNorm,
    Linear,
    MSELoss,
    NLLLoss,
    Pool2D,
    PRelu,
    SpectralNorm,
    TreeConv,
)
from millstream.fluid.dygraph.parallel import DataParallel, ParallelEnv, prepare_context
from millstream.fluid.dygraph.static_runner import StaticModelRunner as StaticModelRunner
from millstream.fluid.dygraph.tracer import Tracer as Tracer

# not the modules: `from paddle.fluid.dygraph import *` must leave the program's own `layers` alone
__all__ = [
    "NCE",
    "BCELoss",
    "BackwardStrategy",
    "BatchNorm",
    "BilinearTensorProduct",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "CosineDecay",
    "DataParallel",
    "Dropout",
    "Embedding",
    "ExponentialDecay",
    "GRUUnit",
    "GroupNorm",
    "InstanceNorm",
    "InverseTimeDecay",
    "L1Loss",
    "LambdaDecay",
    "Layer",
    "LayerList",
    "LayerNorm",
    "Linear",
    "LinearLrWarmup",
    "MSELoss",
    "MultiStepDecay",
    "NLLLoss",
    "NaturalExpDecay",
    "NoamDecay",
    "PRelu",
    "ParallelEnv",
    "ParameterList",
    "PiecewiseDecay",
    "PolynomialDecay",
    "Pool2D",
    "ProgramTranslator",
    "ReduceLROnPlateau",
    "Sequential",
    "SpectralNorm",
    "StepDecay",
    "TracedLayer",
    "TreeConv",
    "declarative",
    "disable_dygraph",
    "disable_imperative",
    "dygraph_to_static_func",
    "enable_dygraph",
    "enable_imperative",
    "enabled",
    "grad",
    "guard",
    "load_dygraph",
    "no_grad",
    "prepare_context",
    "save_dygraph",
    "to_variable",
]

math_op_patch.monkey_patch_math_varbase()
