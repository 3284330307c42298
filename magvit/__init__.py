"""MAGVIT-v2: algorithms, the training loop, and trained models for Python."""

from magvit.load import load_generator as load_generator
from magvit.load import load_tokenizer as load_tokenizer
from magvit.programs import load_program as load_program
