"""Metrics as the published tables define them, on arrays."""
