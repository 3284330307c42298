"""Files of tokens, and their comparison with video codecs."""
