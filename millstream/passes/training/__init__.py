"""Passes over training Programs, with their gradients."""
