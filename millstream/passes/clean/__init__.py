"""Passes that take away what need not be computed."""
