"""Weights that others published, read and converted to ours."""
