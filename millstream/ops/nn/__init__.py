"""Operators: nn."""
