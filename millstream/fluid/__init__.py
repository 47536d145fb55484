"""``paddle.fluid``: the public face."""

from millstream import ops  # installs the operator library
from millstream.autodiff.backward import append_backward, calc_gradient, gradients
from millstream.config import get_flags, set_flags
from millstream.fluid import (
    annotations,
    average,
    backward,
    clip,
    communicator,
    compiler,
    contrib,
    core,
    data_feed_desc,
    data_feeder,
    dataloader,
    dataset,
    debugger,
    default_scope_funcs,
    device_worker,
    distribute_lookup_table,
    dygraph,
    dygraph_utils,
    evaluator,
    executor,
    framework,
    graphviz,
    incubate,
    initializer,
    input,
    install_check,
    io,
    layer_helper,
    layer_helper_base,
    layers,
    lod_tensor,
    log_helper,
    metrics,
    net_drawer,
    nets,
    op,
    optimizer,
    parallel_executor,
    param_attr,
    profiler,
    reader,
    recordio_writer,
    regularizer,
    trainer_desc,
    trainer_factory,
    transpiler,
    unique_name,
    wrapped_decorator,
)
from millstream.fluid.data import data
from millstream.fluid.data_feeder import DataFeeder
from millstream.fluid.dataset import DataFeedDesc, DatasetFactory, InMemoryDataset, QueueDataset
from millstream.fluid.dygraph import (
    disable_dygraph,
    disable_imperative,
    enable_dygraph,
    enable_imperative,
    load_dygraph,
    save_dygraph,
)
from millstream.fluid.dygraph.layers import Layer
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
from millstream.fluid.framework import (
    ComplexVariable,
    cpu_places,
    cuda_pinned_places,
    cuda_places,
    device_guard,
    in_dygraph_mode,
    is_compiled_with_cuda,
    load_op_library,
    require_version,
)
from millstream.fluid.input import embedding, one_hot
from millstream.fluid.io import load, load_program_state, save, set_program_state
from millstream.fluid.layers.math_op_patch import monkey_patch_variable
from millstream.fluid.memory_optimization import memory_optimize, release_memory
from millstream.fluid.param_attr import ParamAttr, WeightNormParamAttr
from millstream.fluid.transpiler import DistributeTranspiler, DistributeTranspilerConfig
from millstream.ir.program import (
    Program,
    default_main_program,
    default_startup_program,
    name_scope,
    program_guard,
)
from millstream.ir.variable import Parameter, Variable
from millstream.runtime.compiler import BuildStrategy, CompiledProgram, ExecutionStrategy, ParallelExecutor
from millstream.runtime.executor import Executor
from millstream.runtime.place import CPUPlace, CUDAPinnedPlace, CUDAPlace
from millstream.runtime.scope import Scope, global_scope, scope_guard
from millstream.runtime.tensor import (
    LoDTensor,
    LoDTensorArray,
    create_lod_tensor,
    create_random_int_lodtensor,
)

Tensor = LoDTensor
_Scope = Scope
