"""Folders of stored tokens of the tiny tokenizer, and of no network at all."""

import functools
import json
import math

import ml_collections

from input_pipeline.sources import token_shards
from magvit import mesh as mesh_lib
from magvit.generators import tokens as tokens_lib
from magvit.modes import tokenize as tokenize_mode
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.workdir import folder as workdir_lib
from magvit.workdir import weights as weights_lib
from tests import tiny

NUM = 40
SHARD = 16  # clips

COMMIT_TASKS = [
  "interpolation",
  "central_outpainting",
  "vertical_outpainting",
  "horizontal_outpainting",
  "dynamic_outpainting",
  "central_inpainting",
  "dynamic_inpainting",
]


def write(workdir, folder, num=NUM, **arguments):
  """Writes tokens as --mode=tokenize does, 40 clips in three shards."""
  arguments = {"examples_per_shard": SHARD, **arguments}
  tokenize_mode.tokenize(str(workdir), str(folder), num=num, **arguments)


def _encode_fast(contents, tokens, mesh):
  """An encoder without a network, for tests of files."""
  del tokens, mesh
  keys = ["ids", *(token_shards.CONDITION + task for task in contents.tasks)]

  def run(video_BTHWC):
    pixels_BN = video_BTHWC.reshape(len(video_BTHWC), -1)
    ids_BN = pixels_BN[:, -math.prod(contents.latent_shape) :] % 64
    return dict.fromkeys(keys, ids_BN)

  return run


_open_tokenizer = tokens_lib.open_tokenizer
_open = functools.cache(
  lambda workdir, dataset: _open_tokenizer(
    ml_collections.ConfigDict(
      {"tokenizer_workdir": workdir, "dataset": json.loads(dataset)}
    ),
    mesh_lib.local_mesh(),
  )
)
_fingerprint_of = functools.cache(fingerprint.read_fingerprint)


def replace_network(monkeypatch):
  """Encodes without the network from now on, and reads a tokenizer once."""
  monkeypatch.setattr(tokenize_mode, "_encoder", _encode_fast)
  monkeypatch.setattr(
    tokens_lib,
    "open_tokenizer",
    lambda config, mesh, abstract=False: _open(
      config.tokenizer_workdir, config.dataset.to_json(sort_keys=True)
    ),
  )
  monkeypatch.setattr(fingerprint, "read_fingerprint", _fingerprint_of)


def other_tokenizer(tmp_path):
  """A workdir of the same config and other weights."""
  config = tiny.tokenizer()
  params = tiny.trained_like(describe.define_tokenizer(config))
  workdir = str(tmp_path / "other_tokenizer")
  weights_lib.save_average(workdir, 1, params)
  workdir_lib.write_config(workdir, config)
  return workdir
