"""Passes over products of matrices and elementwise operators."""
