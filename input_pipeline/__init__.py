"""Clips and labels as numpy batches: sources, and the grain graph on them."""
