"""Tokens as files, and the study of them against video codecs."""
