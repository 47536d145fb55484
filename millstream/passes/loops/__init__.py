"""Passes over loops: operators with a sub-Block, rewritten together with their gradients."""
