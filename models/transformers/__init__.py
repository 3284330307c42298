"""Transformers of the generators."""
