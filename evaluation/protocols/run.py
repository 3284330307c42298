"""Numbers of published tables, by protocol, for a model or for made files.

  python main.py --mode=evaluate --protocol=NAME --workdir=DIR
    [--input=SAMPLES] [--reference=REAL] [--data=FOLDER] [--weights=FILE]
    [--num=N] [--folds=K]

The clips of `--input` are measured, an .npz in the layout of ADM's samples or
a folder of images or videos, whoever made them; without it, the model in DIR
generates or reconstructs clips. They are compared with `--reference`, an .npz
of samples or of statistics (mu, sigma, mu_s, sigma_s) or a folder; without it,
with the data set of the config, or of `--data`, by the protocol's rules. DIR
may hold no model; then it only takes the results.

  DIR/results/PROTOCOL.json   scores, and every choice they depend on
  DIR/features/               features, kept for the same clips and weights

`evaluation/protocols/table.py` has the protocols. A run that departs from its
protocol, or has another number of clips or seed than without flags, says so in
the name of its result: PROTOCOL@DIFFERENCES.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from importlib import metadata
import logging
import os
import platform
from typing import Any

import jax
import ml_collections
import numpy as np

from evaluation import evaluators
from evaluation.metrics import frechet
from evaluation.protocols import clips as clips_lib
from evaluation.protocols import counts
from evaluation.protocols import measurements
from evaluation.protocols import measures
from evaluation.protocols import pairs
from evaluation.protocols import replaced
from evaluation.protocols import table as protocol_table
from evaluation.protocols.clips import Clips
from evaluation.protocols.scored_model import ScoredModel
from evaluation.show import pictures
from models.features import networks as feature_networks
from models.weights import readers
from storage import listing
from storage import npz
from storage import processes
from storage import rows as rows_lib
from storage import stores

log = logging.getLogger(__name__)

_PACKAGES = ("jax", "flax", "numpy", "scipy", "pillow", "av")
_CLIPS_AT_ONCE = 8  # part size without a model and a feature network
_READ_STATISTICS = ("image_suite", "fvd")  # measures that need no clips


@dataclasses.dataclass(frozen=True)
class Request:
  """Flags of the command that say what to measure; None: as the protocol."""

  protocol: str
  input: str | None = None
  reference: str | None = None
  weights: str | None = None
  num: int | None = None
  folds: int | None = None
  seed: int = 0
  data: str | None = None


def score(
  workdir: str,
  request: Request,
  config: ml_collections.ConfigDict | None = None,
  open_model: Callable[[], ScoredModel] | None = None,
  network: Callable[..., Any] | None = None,
  collective: bool = False,
) -> evaluators.Result:
  """Measures, and writes the result; see the top of this file.

  Args:
    workdir: folder that takes the results, and that `open_model` opens.
    request: what to measure.
    config: config of the model, or of a data set to compare with; None:
      neither.
    open_model: opens the model; None if there is none.
    network: a networks.Extractor; None to load the request's weights.
    collective: whether all processes hold parts of one model and call together.

  Raises:
    ValueError: something is missing or does not fit; names the file or flag.
  """
  protocol = protocol_table.get(request.protocol)
  for field in ("num", "folds"):
    value = getattr(request, field)
    if value is not None and value < 1:
      raise ValueError(f"--{field}={value} must be at least 1")
  if (request.folds or 1) > 1 and protocol.measure not in measures.OF_FOLDS:
    raise ValueError(
      f"--folds={request.folds}: {protocol.name} is measured once, on all"
      " clips together: leave --folds out"
    )
  network = network or measurements.load_network(protocol, request.weights)
  run = _Run(
    workdir, protocol, request, config, open_model, network, collective
  )
  return run.result()


class _Run:
  """One measurement: its clips, their features, its scores."""

  def __init__(
    self, workdir, protocol, request, config, open_model, network, collective
  ):
    self._network = network
    self._workdir, self._protocol, self._request = workdir, protocol, request
    self._config, self._collective = config, collective
    self._model: ScoredModel | None = None
    if request.input is None:
      if open_model is None:
        raise ValueError(
          f"{workdir} holds no model: --protocol={protocol.name} needs"
          " --input=FILE_OR_FOLDER, or the workdir of one"
        )
      model = open_model()
      self._model, self._config = model, model.config
    if request.data is not None:
      self._config = counts.with_data(self._config, protocol, request)
    self._given = None
    if request.input is not None:
      self._given = clips_lib.open_path(request.input, protocol, "input")
    self._folds = request.folds or protocol.folds
    self._gaussians, self._reference = self._read_reference()
    sources = counts.Sources(
      *(protocol, request, self._folds, self._given, self._reference),
      *(self._config, lambda: self._dataset),
    )
    self._num, self._all = counts.choose(sources)
    self._part = _CLIPS_AT_ONCE
    if self._model is not None:
      self._part = self._model.batch_size
    elif protocol.network:
      network = feature_networks.NETWORKS[protocol.network]
      self._part = network.clips_at_once

  @functools.cached_property
  def _dataset(self) -> Clips:
    """The real clips of the config's data set, each once."""
    return clips_lib.open_dataset(
      counts.needed_config(self._config, self._protocol),
      self._protocol,
      self._request.seed,
    )

  def _read_reference(self):
    """(statistics by suffix or {}, clips or None) that --reference holds."""
    path, protocol = self._request.reference, self._protocol
    if path is None:
      return {}, None
    if not path.endswith(".npz") or stores.is_folder(path):
      return {}, clips_lib.open_path(path, protocol, "reference")
    held = npz.names(path)
    gaussians = {}
    if "mu" in held:
      if protocol.measure not in _READ_STATISTICS:
        raise ValueError(
          f"--reference={path} holds statistics, and {protocol.name} needs the"
          " clips themselves"
        )
      network = feature_networks.NETWORKS[protocol.network]
      for suffix, feature in network.statistics.items():
        if f"mu{suffix}" in held or not suffix:
          width = network.dims[feature]
          gaussians[suffix] = frechet.load(path, suffix, width)
    if "arr_0" in held:
      return gaussians, clips_lib.open_path(path, protocol, "reference")
    if not gaussians:
      raise ValueError(
        f"--reference={path} must hold arr_0 (clips) or mu and sigma"
        f" (statistics), and it holds {', '.join(held)}"
      )
    return gaussians, None

  def _real_clips(self) -> tuple[Clips | None, int]:
    """(real clips to compare with, number of them); (None, 0) without any."""
    protocol, total = self._protocol, self._num * self._folds
    smaller = protocol.num and self._num < protocol.num
    if self._reference is not None:
      count = self._reference.num
      if protocol.real_num == 0 or protocol.made != "samples":
        count = min(count, total)
      return self._reference, count
    if self._gaussians or protocol.measure == "class_score":
      return None, 0
    clips = self._dataset
    if protocol.real_num < 0 and not smaller:
      if clips.origin["available"] == "endless":
        raise ValueError(
          f"dataset.name={self._config.dataset.name!r} is endless, and"
          f" {protocol.name} reads every real clip: limit them by --num=N"
        )
      return clips, clips.num
    count = total
    if protocol.made == "samples" and not clips.endless:
      count = min(count, clips.num)  # the same again would count twice
    return dataclasses.replace(clips, num=count), count

  def _made_clips(self, real: Clips | None) -> Clips:
    if self._given is not None:
      return self._given
    protocol, total = self._protocol, self._num * self._folds
    if self._model is None:
      raise ValueError(f"{self._workdir} holds no model: give --input")
    if protocol.made == "reconstructions":
      originals = measurements.needed(real, protocol)
      return self._model.reconstructions(protocol, originals)
    given = real
    if protocol.task != "class_conditional" and given is None:
      given = self._dataset
      if given.endless:
        given = dataclasses.replace(given, num=total)
    return self._model.samples(protocol, given, total, self._request.seed)

  def result(self) -> evaluators.Result:
    protocol = self._protocol
    real, real_count = self._real_clips()
    made = self._made_clips(real)
    total = self._num * self._folds
    if protocol.made != "samples":
      if real_count < total:
        raise ValueError(
          f"{total} {protocol.made} have {real_count} originals: --reference"
          " must hold an original for each"
        )
      if self._given is not None:
        pairs.check(protocol, measurements.needed(real, protocol), made)
    work = measurements.Work(
      workdir=self._workdir,
      protocol=protocol,
      network=self._network,
      model=self._model,
      part_size=self._part,
      seed=self._request.seed,
      collective=self._collective,
    )
    made_rows = work.made(made, real, total)
    failures = dict(made_rows.failures)
    folds = [
      _select(made_rows, k * self._num, (k + 1) * self._num)
      for k in range(self._folds)
    ]
    real_folds = None
    if real is not None and protocol.network and protocol.made != "completions":
      real_rows = work.features(real, real_count, "real")
      failures |= real_rows.failures
      paired = self._folds > 1 and real_count == total
      real_folds = [_select(real_rows, 0, real_count)]
      if paired and protocol.real_num == 0:
        real_folds = [
          _select(real_rows, k * self._num, (k + 1) * self._num)
          for k in range(self._folds)
        ]
    compared = measures.Real(real_folds, self._gaussians)
    metrics = measures.measure(protocol, folds, compared)
    record = self._record(made, real, real_folds, failures)
    record |= work.facts()
    record["real_clips_again"] = counts.repeated(real, real_count)
    record["left_out"] = measures.left_out(
      protocol, metrics, folds[0], compared
    )
    result = evaluators.Result(self._name(made, real_count), metrics, record)
    if processes.is_first():
      self._publish(result)
    if self._collective:  # features at the next step will differ
      rows_lib.discard(made_rows)
    return result

  def _publish(self, result: evaluators.Result) -> None:
    """Writes the result, and logs its scores."""
    step = 0 if self._model is None else self._model.step
    replaced.say(self._workdir, result)
    path = result.write(self._workdir, step)
    for name, reason in result.protocol["left_out"].items():
      log.info("%s: no %s, which %s", result.evaluator, name, reason)
    log.info("%s", result.summary())
    log.info("wrote %s", path)
    failures = result.protocol["failures"]
    if failures:
      log.info("%d clips were left out; the file says why", len(failures))

  def _name(self, made: Clips, real_count: int) -> str:
    actual = {"num": self._num, "folds": self._folds, "all": self._all}
    actual["seed"] = self._request.seed
    if self._request.data is not None:
      folder = os.path.basename(stores.absolute(self._request.data))
      actual["data"] = listing.safe(folder)
    if made.origin["uint8"] in pictures.UINT8_RULES:
      actual["uint8"] = made.origin["uint8"]
    protocol, config = self._protocol, self._config
    if self._reference is None and not self._gaussians and config is not None:
      name = config.dataset.name
      known = protocol.dataset and name.startswith(protocol.dataset)
      actual["dataset"] = protocol.dataset if known else name
      if config.dataset.format == "embedded":
        actual["window"] = "own"
      if protocol.real_num == 0 and 0 < real_count < self._num * self._folds:
        actual["real"] = real_count
    elif self._reference is not None and self._request.reference:
      if stores.is_folder(self._request.reference) and protocol.frames > 1:
        actual["window"] = "first"
    if self._model is not None and protocol.condition_frames:
      actual["condition_frames"] = self._model.config.condition_frames
    return protocol_table.reported_name(protocol, actual)

  def _record(self, made, real, real_folds, failures) -> dict[str, Any]:
    """Everything that the number depends on."""
    protocol, request = self._protocol, self._request
    rules = dataclasses.asdict(protocol)
    del rules["uint8"]  # files have rules of their own: see "uint8_rule"
    network = self._network
    reference = request.reference
    digest = None
    if reference is not None and stores.is_file(reference):
      digest = readers.sha256(reference)
    return {
      **rules,
      "protocol": protocol.name,
      "num": self._num,
      "folds": self._folds,
      "examples": self._num * self._folds - len(failures),
      "real_examples_per_fold": [
        len(next(iter(f.values()))) for f in real_folds or ()
      ],
      "seed": request.seed,
      "weights_sha256": getattr(network, "weights_sha256", None),
      "uint8_rule": made.origin["uint8"],
      "resize_rule": measurements.resize_rule(protocol),
      "made_clips": made.origin,
      "pairs": pairs.describe(protocol, self._given),
      "real_clips": None if real is None else real.origin,
      "reference": reference,
      "reference_sha256": digest,
      "reference_statistics": [f"mu{s}" for s in self._gaussians],
      "form": "Fréchet: exact nuclear-norm form, float64, Chan merge",
      "failures": failures,
      "versions": {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
      },
      "device": jax.devices()[0].device_kind,
    }


def _select(rows: rows_lib.Rows, start: int, stop: int) -> measures.Features:
  """Rows of the clips from start to stop, as views."""
  first, last = np.searchsorted(rows.index, (start, stop))
  return {name: array[first:last] for name, array in rows.rows.items()}


def run_configured(
  config: ml_collections.ConfigDict,
  workdir: str,
  model: ScoredModel,
) -> Sequence[evaluators.Result]:
  """Measures by the protocols of config.evaluation, as training goes on."""
  results = []
  for name in config.evaluation.protocols:
    protocol = protocol_table.get(name)
    if protocol.made != "reconstructions" and not model.generates:
      raise ValueError(
        f"evaluation.protocols names {name!r}, which measures {protocol.made},"
        f" and {config.name!r} generates none: remove it"
      )
    weights = config.evaluation[f"{protocol.network or 'lpips'}_weights"]
    request = Request(
      protocol=name,
      weights=weights or None,
      num=config.evaluation.num or None,
      folds=1,
      seed=config.seed,
    )
    results.append(
      score(workdir, request, config, lambda: model, collective=True)
    )
  return results
