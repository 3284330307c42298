"""MAGVIT-v2: algorithms, the training loop, and trained models for Python."""

from magvit.api import load_generator as load_generator
from magvit.tokenizer.loaded import load_tokenizer as load_tokenizer
from magvit.workdir.stablehlo import load_program as load_program
