"""``fluid.dygraph``: eager mode."""

from millstream.fluid.dygraph import (
    backward_strategy,
    base,
    checkpoint,
    container,
    dygraph_to_static,
    jit,
    layer_object_helper,
    layers,
    learning_rate_scheduler,
    math_op_patch,
    nn,
    parallel,
    parallel_helper,
    static_runner,
    tracer,
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
from millstream.fluid.dygraph.static_runner import StaticModelRunner
from millstream.fluid.dygraph.tracer import Tracer

math_op_patch.monkey_patch_math_varbase()
