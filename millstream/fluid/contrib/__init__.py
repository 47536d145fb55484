"""``fluid.contrib``: layers and tools apart from the core."""

from millstream.fluid.contrib import (
    decoder as decoder,
)
from millstream.fluid.contrib import (
    extend_optimizer as extend_optimizer,
)
from millstream.fluid.contrib import (
    layers as layers,
)
from millstream.fluid.contrib import (
    memory_usage_calc as memory_usage_calc,
)
from millstream.fluid.contrib import (
    mixed_precision,
)
from millstream.fluid.contrib import (
    model_stat as model_stat,
)
from millstream.fluid.contrib import (
    op_frequence as op_frequence,
)
from millstream.fluid.contrib import (
    quantize as quantize,
)
from millstream.fluid.contrib import (
    reader as reader,
)
from millstream.fluid.contrib import (
    utils as utils,
)
from millstream.fluid.contrib.decoder import BeamSearchDecoder, InitState, StateCell, TrainingDecoder
from millstream.fluid.contrib.extend_optimizer import extend_with_decoupled_weight_decay
from millstream.fluid.contrib.layers import (
    BasicGRUUnit,
    BasicLSTMUnit,
    basic_gru,
    basic_lstm,
    ctr_metric_bundle,
    fused_elemwise_activation,
    fused_embedding_seq_pool,
    match_matrix_tensor,
    multiclass_nms2,
    partial_concat,
    partial_sum,
    rank_attention,
    search_pyramid_hash,
    sequence_topk_avg_pooling,
    shuffle_batch,
    tdm_child,
    tdm_sampler,
    tree_conv,
    var_conv_2d,
)
from millstream.fluid.contrib.memory_usage_calc import memory_usage
from millstream.fluid.contrib.mixed_precision import AutoMixedPrecisionLists, decorate
from millstream.fluid.contrib.model_stat import summary
from millstream.fluid.contrib.op_frequence import op_freq_statistic
from millstream.fluid.contrib.quantize import QuantizeTranspiler
from millstream.fluid.contrib.reader import distributed_batch_reader
from millstream.fluid.contrib.utils import HDFSClient, multi_download, multi_upload

# not the modules: `from paddle.fluid.contrib import *` must leave the program's own `layers` alone
__all__ = [
    "AutoMixedPrecisionLists",
    "BasicGRUUnit",
    "BasicLSTMUnit",
    "BeamSearchDecoder",
    "HDFSClient",
    "InitState",
    "QuantizeTranspiler",
    "StateCell",
    "TrainingDecoder",
    "basic_gru",
    "basic_lstm",
    "ctr_metric_bundle",
    "decorate",
    "distributed_batch_reader",
    "extend_with_decoupled_weight_decay",
    "fused_elemwise_activation",
    "fused_embedding_seq_pool",
    "match_matrix_tensor",
    "memory_usage",
    "mixed_precision",
    "multi_download",
    "multi_upload",
    "multiclass_nms2",
    "op_freq_statistic",
    "partial_concat",
    "partial_sum",
    "rank_attention",
    "search_pyramid_hash",
    "sequence_topk_avg_pooling",
    "shuffle_batch",
    "summary",
    "tdm_child",
    "tdm_sampler",
    "tree_conv",
    "var_conv_2d",
]
