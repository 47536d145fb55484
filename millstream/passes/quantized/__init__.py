"""Passes: integers."""
