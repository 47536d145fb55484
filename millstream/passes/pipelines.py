"""Which passes run, in order."""

PLAN = ("fuse_fc", "fuse_fc_relu", "fuse_projected_gru", "fuse_optimizers")
"""For every Plan; a Plan for a debugging run (FLAGS_check_nan_inf) has none, so that errors name the user's operators."""

CLEAN = (
    "set_is_test", "remove_dead", "split_versions", "remove_identities", "fold_constants", "merge_common", "fold_conv_bn",
)  # fmt: skip
"""What is right for any inference Program and any engine: the result has Fluid's own operators, none of them fused."""

EXPORT = CLEAN
"""For other engines, which fuse by themselves."""

_CONVOLUTION = ("fuse_conv_bias", "fuse_conv_residual", "fuse_conv_activation")
_DENSE = ("fuse_fc", "fuse_fc_relu")

INFER = (*CLEAN, *_CONVOLUTION, *_DENSE, "remove_dead")
"""For inference by millstream (`passes.optimize`)."""
