"""MAGVIT-v2: algorithms, the training loop, and trained models for Python."""

from magvit.load import load_generator as load_generator
from magvit.load import load_tokenizer as load_tokenizer
