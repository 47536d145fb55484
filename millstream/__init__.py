"""millstream: the PaddlePaddle Fluid 1.8 interface on PyTorch."""
