"""The tokenizer: its training as a GAN, and its use on clips and streams."""
