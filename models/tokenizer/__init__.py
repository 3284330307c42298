"""Networks of the tokenizer and its discriminator."""
