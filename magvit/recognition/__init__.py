"""Recognition of what clips show, from tokens, latents or pixels."""
