"""MAGVIT-L's forward pass against a BERT of the same shape, and its sampling.

  python -m benchmarks.generator [--tokens=256] [--clip_tokens=1280]
    [--steps=12] [--repeats=5] [--threads=2] [--output=FILE]

The peer is transformers' BertForMaskedLM with our weights: class and mask are
words of it. Both compute the logits of the same tokens, in turn, in float32.
The report has median times, the largest difference of the logits, and as a
floor the time that one large matrix product takes for as many operations. A
clip is then sampled by the whole loop, without guidance, which would double the
time, and without the tokenizer. It needs torch and transformers beside
requirements.txt; nothing is downloaded. Read ratios, not times.
"""

import argparse
import json
import os
import pathlib
import statistics

import jax
import numpy as np
import torch
import transformers

from benchmarks import timing
from configs import masked as masked_config
from magvit.cost import flops
from magvit.generators import masked
from magvit.generators import sampling
from tests import tiny


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument(
    "--config", default="v1_ucf101_l", help="row of configs/masked.py"
  )
  parser.add_argument(
    "--tokens", type=int, default=256, help="tokens of the forward pass"
  )
  parser.add_argument(
    "--clip_tokens", type=int, default=1280, help="tokens of the sampled clip"
  )
  parser.add_argument("--steps", type=int, default=12, help="sampling steps")
  parser.add_argument("--repeats", type=int, default=5, help="timed runs")
  parser.add_argument("--threads", type=int, default=2, help="torch's threads")
  parser.add_argument(
    "--output", type=pathlib.Path, help="JSON to write as well"
  )
  args = parser.parse_args()
  torch.set_num_threads(args.threads)

  config = masked_config.get_config(args.config)
  transformer = masked.define_transformer(config, args.tokens)
  params = tiny.draw(jax.eval_shape(transformer.init, jax.random.key(0)))
  peer = _peer(config, params, args.tokens)
  inputs = _inputs(config, args.tokens)
  parts_BNF, masked_BN, class_B, _ = inputs
  words = np.where(masked_BN, peer.config.vocab_size - 1, parts_BNF[..., 0])
  vocabulary = 2 ** config.transformer.factor_bits[0]
  words = np.concatenate([vocabulary + class_B[:, None], words], axis=1)
  words = torch.from_numpy(words.astype(np.int64))

  forward = jax.jit(transformer)

  def run_peer():
    with torch.inference_mode():
      return peer(words).logits[:, 1:, :vocabulary].numpy()

  runs = {
    "ours": lambda: forward(params, *inputs)[0],
    "peer": run_peer,
    "gemm": timing.gemm(),
  }
  # The first runs also compile and warm up.
  logits, peer_logits, _ = (np.asarray(run()) for run in runs.values())
  wall, _ = timing.seconds(runs, args.repeats)
  seconds = {name: statistics.median(values) for name, values in wall.items()}
  per_second = timing.GEMM_FLOP / seconds["gemm"]
  operations = flops.count(transformer, params, *inputs)
  result = {
    "config": args.config,
    "threads": args.threads,
    "cores": os.cpu_count(),
    "load": os.getloadavg()[0],
    "relative_error": float(
      np.abs(logits - peer_logits).max() / np.abs(peer_logits).max()
    ),
    "forward": {
      "tokens": args.tokens,
      "gflop": operations / 1e9,
      "seconds": seconds,
      "peer_over_ours": seconds["peer"] / seconds["ours"],
      "ours_over_floor": seconds["ours"] * per_second / operations,
    },
    "clip": _clip(config, args, per_second),
  }
  text = json.dumps(result, indent=2)
  print(text)
  if args.output:
    args.output.write_text(text + "\n")


def _inputs(config, tokens: int):
  """Draws (sub-tokens, whether a token is masked, class, task) of a clip."""
  rng = np.random.default_rng(0)
  parts_BNF = rng.integers(
    0,
    [2**bits for bits in config.transformer.factor_bits],
    (1, tokens, len(config.transformer.factor_bits)),
    dtype=np.int32,
  )
  masked_BN = rng.random((1, tokens)) < 0.5
  return parts_BNF, masked_BN, np.zeros(1, np.int32), np.zeros(1, np.int32)


def _peer(config, params, tokens: int) -> transformers.BertForMaskedLM:
  """Makes a BERT with our weights; words are tokens, classes and the mask."""
  t = config.transformer
  words = [
    params["factors"][0]["embedding"],
    params["classes"]["embedding"],
    params["mask"]["embedding"],
  ]
  words = np.concatenate([np.asarray(x) for x in words])
  bert = transformers.BertForMaskedLM(
    transformers.BertConfig(
      vocab_size=len(words),
      hidden_size=t.width,
      num_hidden_layers=t.num_layers,
      num_attention_heads=t.num_heads,
      intermediate_size=t.mlp_width,
      hidden_act="gelu_pytorch_tanh",
      max_position_embeddings=tokens + 1,
      type_vocab_size=1,
      layer_norm_eps=1e-12,
      attn_implementation="sdpa",
    )
  ).eval()
  flat = lambda x: np.asarray(x).reshape(-1, t.width)
  tensors = {
    "bert.embeddings.word_embeddings.weight": words,
    "bert.embeddings.position_embeddings.weight": params["positions"][
      "embedding"
    ],
    "bert.embeddings.token_type_embeddings.weight": np.zeros((1, t.width)),
    "cls.predictions.bias": np.pad(
      params["heads"][0]["bias"], (0, len(words) - 2 ** t.factor_bits[0])
    ),
  }

  def dense(name, kernel, bias):
    tensors[f"{name}.weight"] = np.asarray(kernel).T
    tensors[f"{name}.bias"] = np.asarray(bias).reshape(-1)

  def norm(name, ours):
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = (
      ours["scale"],
      ours["bias"],
    )

  norm("bert.embeddings.LayerNorm", params["norm"])
  head = params["heads"][0]
  transform = "cls.predictions.transform"
  dense(f"{transform}.dense", head["dense"]["kernel"], head["dense"]["bias"])
  norm(f"{transform}.LayerNorm", head["norm"])
  for i in range(t.num_layers):
    layer = jax.tree.map(lambda x, i=i: np.asarray(x[i]), params["layers"])
    at = f"bert.encoder.layer.{i}"
    for j, name in enumerate(("query", "key", "value")):
      dense(
        f"{at}.attention.self.{name}",
        layer["qkv"]["kernel"][:, j].reshape(t.width, -1),
        layer["qkv"]["bias"][j],
      )
    dense(
      f"{at}.attention.output.dense",
      flat(layer["out"]["kernel"]),
      layer["out"]["bias"],
    )
    norm(f"{at}.attention.output.LayerNorm", layer["attention_norm"])
    for peer_name, name in (("intermediate", "mlp_in"), ("output", "mlp_out")):
      dense(
        f"{at}.{peer_name}.dense", layer[name]["kernel"], layer[name]["bias"]
      )
    norm(f"{at}.output.LayerNorm", layer["mlp_norm"])
  # Arrays are copied, as torch cannot share the read-only memory of JAX.
  state = {
    name: torch.from_numpy(np.array(x, np.float32))
    for name, x in tensors.items()
  }
  tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
  missing, unknown = bert.load_state_dict(state, strict=False)
  assert set(missing) <= tied and not unknown, (missing, unknown)
  bert.tie_weights()
  return bert


def _clip(config, args, per_second: float):
  """Samples the tokens of one clip, with nothing given."""
  transformer = masked.define_transformer(config, args.clip_tokens)
  params = tiny.draw(jax.eval_shape(transformer.init, jax.random.key(0)))
  parts_BNF, _, class_B, task_B = _inputs(config, args.clip_tokens)

  def sample(params, key):
    def predict(parts_BNF, decided_BN, step):
      del step
      return transformer(params, parts_BNF, ~decided_BN, class_B, task_B)

    nothing_BN = np.zeros(parts_BNF.shape[:2], bool)
    return sampling.decode(
      *(key, predict, parts_BNF, nothing_BN, args.steps),
      *(config.sampling.schedule, config.sampling.choice_temperature),
    )

  key = jax.random.key(0)
  operations = flops.count(sample, params, key)
  compiled = jax.jit(sample).lower(params, key).compile()
  wall, _ = timing.seconds({"clip": lambda: compiled(params, key)}, 1)
  (seconds,) = wall["clip"]
  return {
    "tokens": args.clip_tokens,
    "steps": args.steps,
    "gflop": operations / 1e9,
    "seconds": seconds,
    "over_floor": seconds * per_second / operations,
  }


if __name__ == "__main__":
  main()
