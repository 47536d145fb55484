"""Which passes run, in order."""

PLAN = ("fuse_fc", "fuse_fc_relu", "fuse_projected_gru", "fuse_optimizers")
"""For every Plan; a Plan for a debugging run (FLAGS_check_nan_inf) has none, so that errors name the user's operators."""

CLEAN = ("set_is_test", "remove_dead", "remove_identities", "fold_constants", "merge_common")
"""What is right for any inference Program and any engine."""

INFER = (*CLEAN, "fuse_fc", "fuse_fc_relu", "remove_dead")
"""For inference (`passes.optimize`)."""
