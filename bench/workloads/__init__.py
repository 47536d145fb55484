"""One file a workload: `fluid_model(fluid)` builds it in Fluid's API, `torch_step()` the same in plain torch.

Everything at module level must run on Python 3.7 and without torch: PaddlePaddle 1.8.5 imports these files too.
"""
