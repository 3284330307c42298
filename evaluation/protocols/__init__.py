"""Protocols of the published tables: which clips, features and scores."""
