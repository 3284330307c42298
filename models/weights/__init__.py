"""Weights of others, read and converted to ours."""
