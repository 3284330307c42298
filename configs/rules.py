"""Rules that split parameters of the networks, for `mesh.rules`."""

# Channels between the two convolutions of a residual block are split.
CONV_RULES = (
  (r"/conv1/kernel$", ("tensor",)),
  (r"/conv2/kernel$", ("tensor", None)),
)
# Heads and hidden units of a block are split.
TRANSFORMER_RULES = (
  (r"/qkv/(kernel|bias)$", ("tensor", None)),
  (r"/out/kernel$", ("tensor", None, None)),
  (r"/mlp_in/(kernel|bias)$", ("tensor",)),
  (r"/mlp_out/kernel$", ("tensor", None)),
)
# Rows of large tables of embeddings are split.
TABLE_RULE = (r"/(factors|outputs)/\d+/embedding$", ("tensor", None))
