"""Held-out scores and pictures of a trained model."""
