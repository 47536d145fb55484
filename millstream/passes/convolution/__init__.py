"""Passes over convolutions."""
