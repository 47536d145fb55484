"""``fluid.dygraph.nn``: the layer classes. Every forward() makes the operators that fluid.layers makes."""

from millstream.fluid.dygraph.nn.conv import Conv2D, Conv2DTranspose, Conv3D, Conv3DTranspose, Pool2D
from millstream.fluid.dygraph.nn.dense import BilinearTensorProduct, Embedding, GRUUnit, Linear, PRelu
from millstream.fluid.dygraph.nn.loss import BCELoss, L1Loss, MSELoss, NLLLoss
from millstream.fluid.dygraph.nn.norm import BatchNorm, Dropout, GroupNorm, InstanceNorm, LayerNorm, SpectralNorm
from millstream.fluid.dygraph.nn.sampled import NCE, RowConv, SequenceConv, TreeConv

__all__ = [
    "NCE",
    "BCELoss",
    "BatchNorm",
    "BilinearTensorProduct",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dropout",
    "Embedding",
    "GRUUnit",
    "GroupNorm",
    "InstanceNorm",
    "L1Loss",
    "LayerNorm",
    "Linear",
    "MSELoss",
    "NLLLoss",
    "PRelu",
    "Pool2D",
    "RowConv",
    "SequenceConv",
    "SpectralNorm",
    "TreeConv",
]
