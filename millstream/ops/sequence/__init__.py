"""Operators: sequence."""
