"""Generators of tokens: tasks, sampling and losses."""
