"""Metrics, evaluators, pictures and the report; fed functions and arrays."""
