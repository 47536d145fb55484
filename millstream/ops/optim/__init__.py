"""Operators: optim."""
