"""Feature networks of metrics and of the perceptual loss."""
