"""Passes over recurrent layers."""
