"""Operators: fused."""
