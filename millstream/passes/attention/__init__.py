"""Passes over attention and layer normalisation."""
