"""Operators: detection."""
