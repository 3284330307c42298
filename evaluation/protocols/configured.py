"""The protocols that a config names, checked before training begins."""

from collections.abc import Sequence

import ml_collections

from evaluation.protocols import clips as clips_lib
from evaluation.protocols import table as protocol_table
from models.features import networks as feature_networks
from models.quantizers import build as quantizer_build
from models.weights import safetensors_file
from storage import stores


def check(config: ml_collections.ConfigDict, tasks: Sequence[str]) -> None:
  """Checks `config.evaluation` as far as no trained model is needed.

  Args:
    config: the experiment.
    tasks: tasks that the model is trained on; () for tokenizers.

  Raises:
    ValueError: an unknown protocol, one that the model cannot serve, or weights
      that are missing or another network's.
  """
  for name in config.evaluation.protocols:
    protocol = protocol_table.get(name)
    _check_served(config, protocol, tasks)
    clips_lib.check_frames(config.dataset.frames, protocol, "dataset.frames")
    if protocol.network:
      _check_weights(config, protocol.network, f"the protocol {name!r}")
  if config.evaluation.lpips_weights:
    _check_weights(config, "lpips", "LPIPS", "lpips_vgg")


def _check_served(
  config: ml_collections.ConfigDict,
  protocol: protocol_table.Protocol,
  tasks: Sequence[str],
) -> None:
  named = f"evaluation.protocols names {protocol.name!r}, which measures"
  is_generated = protocol.made != "reconstructions"
  if is_generated and not tasks:
    raise ValueError(
      f"{named} {protocol.made}, and {config.name!r} generates none: remove it"
    )
  if is_generated and protocol.task not in tasks:
    raise ValueError(
      f"{named} {protocol.made} of {protocol.task}, and {config.name!r} has"
      f" tasks.{protocol.task}=0: remove it, or train on that task"
    )
  if protocol.made == "reconstructions" and tasks:
    raise ValueError(
      f"{named} reconstructions, and {config.name!r} makes samples: remove it;"
      f" --mode=evaluate --protocol={protocol.name} measures the tokenizer"
    )
  if protocol.measure == "codes":
    name = config.quantizer.name
    if not quantizer_build.kind(name).has_ids:
      raise ValueError(
        f"{named} the use of codes, and quantizer.name={name!r} has none:"
        " remove it"
      )
  if protocol.measure == "perturbed_fid":
    name = config.quantizer.name
    if not quantizer_build.kind(name).signs:
      raise ValueError(
        f"{named} codes whose bits are signs, and quantizer.name={name!r} has"
        " others: remove it"
      )


def _check_weights(
  config: ml_collections.ConfigDict, kind: str, who: str, network: str = ""
) -> None:
  field = f"evaluation.{kind}_weights"
  path = config.evaluation[f"{kind}_weights"]
  if not stores.is_file(path):
    network = network or kind
    known = feature_networks.NETWORKS.get(network)
    remedy = (
      known.how_to_get(network)
      if known
      else "convert it once by python -m models.weights.convert"
      f" --network={network}"
    )
    raise ValueError(
      f"{field}={path!r} is no file, and {who} needs it: {remedy}"
    )
  try:
    safetensors_file.check_network(path, network or kind)
  except ValueError as error:
    raise ValueError(f"{field}: {error}") from error
