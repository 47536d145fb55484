"""Passes over operators on sequences."""
