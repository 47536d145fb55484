"""float16 on processors without float16 arithmetic: products go through float32, which also sums more exactly.

Measured without AVX512-FP16: torch's own float16 matrix product and convolution take 20 to 40 times as long as in
float32. bfloat16 needs nothing of this.
"""

from __future__ import annotations

import torch

_PROBE = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
_NATIVE = _PROBE is not None and bool(_PROBE())


def slow_half(t: torch.Tensor) -> bool:
    """Whether products of `t` should be computed in float32."""
    return t.dtype is torch.float16 and not _NATIVE and t.device.type == "cpu"


def halved(*tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """The tensors in float16."""
    return tuple(None if t is None else t.half() for t in tensors)
