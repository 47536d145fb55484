"""Operators: tensor."""
