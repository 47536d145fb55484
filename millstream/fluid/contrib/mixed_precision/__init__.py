"""Training in float16 or bfloat16 with float32 parameters (Micikevicius et al. 2018, arXiv:1710.03740)."""

from millstream.fluid.contrib.mixed_precision import decorator, fp16_lists, fp16_utils
from millstream.fluid.contrib.mixed_precision.decorator import decorate
from millstream.fluid.contrib.mixed_precision.fp16_lists import AutoMixedPrecisionLists

__all__ = ["AutoMixedPrecisionLists", "decorate", "decorator", "fp16_lists", "fp16_utils"]
