"""Peer of MAGVIT-L's training step: a plain BERT of the same shape in torch.

Post-LN blocks, learned positions, factorised vocabulary with a tied head for
each sub-token, `scaled_dot_product_attention` with dropout of its weights,
AdamW in one kernel, gradients clipped, bfloat16 by autocast. It is what a
careful user of torch writes, so that a ratio to it means something.
"""

import dataclasses

import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Shape:
  """Shape of the network: its fields are those of `config.transformer`."""

  tokens: int  # positions, with the class token
  num_layers: int
  width: int
  mlp_width: int
  num_heads: int
  factor_bits: tuple[int, ...]
  dropout: float


class Block(nn.Module):
  """Attention and a gelu MLP, each added and then normalised."""

  def __init__(self, shape: Shape):
    super().__init__()
    self.heads, self.rate = shape.num_heads, shape.dropout
    self.qkv = nn.Linear(shape.width, 3 * shape.width)
    self.out = nn.Linear(shape.width, shape.width)
    self.attention_norm = nn.LayerNorm(shape.width, eps=1e-12)
    self.mlp_in = nn.Linear(shape.width, shape.mlp_width)
    self.mlp_out = nn.Linear(shape.mlp_width, shape.width)
    self.mlp_norm = nn.LayerNorm(shape.width, eps=1e-12)
    self.drop = nn.Dropout(shape.dropout)

  def forward(self, x_BND: torch.Tensor) -> torch.Tensor:
    batch, tokens, width = x_BND.shape
    split = (batch, tokens, 3, self.heads, width // self.heads)
    q, k, v = self.qkv(x_BND).view(split).permute(2, 0, 3, 1, 4)
    rate = self.rate if self.training else 0.0
    y = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
    y_BND = y.transpose(1, 2).reshape(batch, tokens, width)
    x_BND = self.attention_norm(x_BND + self.drop(self.out(y_BND)))
    h_BND = functional.gelu(self.mlp_in(x_BND), approximate="tanh")
    return self.mlp_norm(x_BND + self.drop(self.mlp_out(h_BND)))


class Bert(nn.Module):
  """Logits of each sub-token of every position."""

  def __init__(self, shape: Shape):
    super().__init__()
    self.tables = nn.ModuleList(
      nn.Embedding(2**bits, shape.width) for bits in shape.factor_bits
    )
    self.positions = nn.Embedding(shape.tokens, shape.width)
    self.norm = nn.LayerNorm(shape.width, eps=1e-12)
    self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
    self.heads = nn.ModuleList(
      nn.Sequential(
        nn.Linear(shape.width, shape.width),
        nn.GELU(approximate="tanh"),
        nn.LayerNorm(shape.width, eps=1e-12),
      )
      for _ in shape.factor_bits
    )
    self.biases = nn.ParameterList(
      torch.zeros(2**bits) for bits in shape.factor_bits
    )
    self.drop = nn.Dropout(shape.dropout)

  def forward(self, parts_BNF: torch.Tensor) -> list[torch.Tensor]:
    x_BND = self.positions.weight[None]
    for f, table in enumerate(self.tables):
      x_BND = x_BND + table(parts_BNF[..., f])
    x_BND = self.drop(self.norm(x_BND))
    for block in self.blocks:
      x_BND = block(x_BND)
    return [
      functional.linear(head(x_BND), table.weight, bias)
      for head, table, bias in zip(
        self.heads, self.tables, self.biases, strict=True
      )
    ]


def make_step(shape: Shape, batch: int, device: str, compiled: bool):
  """Makes a function that trains one step on random tokens."""
  torch.manual_seed(0)
  torch.set_float32_matmul_precision("high")
  model = Bert(shape).to(device)
  network = torch.compile(model) if compiled else model
  adam = torch.optim.AdamW(
    model.parameters(),
    lr=1e-4,
    betas=(0.9, 0.96),
    weight_decay=0.045,
    fused=device == "cuda",
  )
  top = min(2**bits for bits in shape.factor_bits)
  shape_BNF = (batch, shape.tokens, len(shape.factor_bits))
  parts_BNF = torch.randint(top, shape_BNF, device=device)

  def step():
    with torch.autocast(device, torch.bfloat16):
      logits = network(parts_BNF)
      loss = sum(
        functional.cross_entropy(
          logits_BNV.float().flatten(0, 1),
          parts_BNF[..., f].flatten(),
          label_smoothing=1e-4,
        )
        for f, logits_BNV in enumerate(logits)
      )
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad(set_to_none=True)

  return step
