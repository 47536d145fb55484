"""Which passes run, in order."""

PLAN = ("fuse_fc", "fuse_fc_relu", "fuse_projected_gru", "fuse_optimizers")
"""For every Plan; a Plan for a debugging run (FLAGS_check_nan_inf) has none, so that errors name the user's operators."""
