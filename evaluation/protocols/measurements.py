"""Rows of numbers of clips, from which a protocol's scores are computed."""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import typing
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from evaluation import values
from evaluation.metrics import lpips
from evaluation.protocols import clips as clips_lib
from evaluation.protocols import completions as completions_lib
from evaluation.protocols import measures
from evaluation.protocols import networks
from evaluation.protocols import table as protocol_table
from evaluation.protocols.clips import Clips
from evaluation.protocols.scored_model import ScoredModel
from evaluation.show import pictures
from models.features import networks as feature_networks
from models.features import resize
from storage import files
from storage import rows as rows_lib


@dataclasses.dataclass(frozen=True)
class Work:
  """Makes rows: by which networks, in parts of which size, kept where.

  collective: whether all processes hold parts of one model and call together.
  """

  workdir: str
  protocol: protocol_table.Protocol
  network: Callable[..., Any] | None  # features.Extractor, or lpips.Lpips
  model: ScoredModel | None
  part_size: int
  seed: int
  collective: bool

  def made(self, made: Clips, real: Clips | None, num: int) -> rows_lib.Rows:
    """Rows of the made clips that the protocol's measure reads."""
    by_measure = {
      "pixels": self.pixels,
      "codes": self.codes,
      "perturbed_fid": self.perturbed,
      "completions": self.completions,
    }
    if self.protocol.measure in by_measure:
      originals = needed(real, self.protocol)
      return by_measure[self.protocol.measure](made, originals, num)
    return self.features(made, num, "made")

  def _rows(self, subject, num, make) -> rows_lib.Rows:
    """Rows in a folder of their own, named by all that they depend on."""
    text = json.dumps(
      {**subject, "num": num, "part_size": self.part_size}, default=str
    )
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = files.inside(self.workdir, "features", f"{subject['name']}_{key}")
    subject = json.loads(json.dumps(subject, default=str))
    try:
      rows = rows_lib.compute(
        folder, subject, num, self.part_size, make, self.collective
      )
    except OSError as error:
      raise ValueError(f"cannot keep features in {folder}: {error}") from error
    for name, array in rows.rows.items():
      values.check_range(f"{subject['name']}, {name} in {folder}", array)
    return rows

  def _describe(self, clips: Clips, side: str) -> dict[str, Any]:
    """All that the features of clips depend on, as JSON."""
    protocol = self.protocol
    # Features of before there were variants keep their description.
    variant = {"variant": protocol.variant} if protocol.variant else {}
    return {
      "name": f"{protocol.name}_{side}",
      "clips": clips.origin,
      "frames": protocol.frames,
      "resize": protocol.resize,
      "network": protocol.network,
      "weights": getattr(self.network, "weights_sha256", None),
      **variant,
    }

  def features(self, clips: Clips, num: int, side: str) -> rows_lib.Rows:
    """Features of clips; `side` is "made" or "real"."""

    def make(index):
      read = clips.read(index)
      rows = self._extract(read.video) if len(read.index) else {}
      return rows_lib.Part(read.index, rows, read.failures)

    return self._rows(self._describe(clips, side), num, make)

  def _extract(self, video_BTHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Features by name; processes that hold the same clips share the work."""
    network = self.network
    if network is None:
      raise ValueError(f"--protocol={self.protocol.name} needs --weights=FILE")
    if not self.collective or jax.process_count() == 1:
      return self._by_network(network, video_BTHWC)
    count = len(video_BTHWC)
    size = -(-count // jax.process_count())
    place = (jax.process_index() * size + np.arange(size)) % count
    share = self._by_network(network, video_BTHWC[place])
    gathered = multihost_utils.process_allgather(share, tiled=True)
    return {name: np.asarray(x)[:count] for name, x in gathered.items()}

  def _by_network(
    self, network: Callable[..., Any], video_BTHWC: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Features by name; of a network of images those of each frame, in turn."""
    protocol = self.protocol
    video = video_BTHWC[:, : protocol.frames or None]
    if protocol.resize:
      video = _central_bilinear(video, protocol.resize)
    if feature_networks.NETWORKS[protocol.network].ndim == 5:
      return network(video)
    by_frame = [network(video[:, t]) for t in range(video.shape[1])]
    return {
      name: np.concatenate([each[name] for each in by_frame], axis=1)
      for name in by_frame[0]
    }

  def pixels(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Scores of each clip against its original."""

    def make(index):
      original, output = _pairs(real.read(index), made.read(index))
      rows = {}
      if len(output.index):
        rows = measures.pixel_scores(original.video, output.video, self.network)
      failures = {**original.failures, **output.failures}
      return rows_lib.Part(output.index, rows, failures)

    subject = {**self._describe(made, "made"), "originals": real.origin}
    return self._rows(subject, num, make)

  def completions(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Features and scores of completed clips, and of trivial completions."""
    model, given = self._completing()
    tokenize = lambda video: pictures.to_uint8(
      model.tokenized(video, given.task),
      self.protocol.uint8,
      "clips through the tokens",
    )

    def make(index):
      original, output = _pairs(real.read(index), made.read(index))
      rows = {}
      if len(output.index):
        network = typing.cast(networks.Extractor, self.network)
        rows = completions_lib.rows(
          original.video, output.video, given, network, tokenize
        )
      failures = {**original.failures, **output.failures}
      return rows_lib.Part(output.index, rows, failures)

    subject = {**self._describe(made, "made"), "given": given.numbers}
    subject["kinds"] = completions_lib.STARTS
    return self._rows(subject, num, make)

  def facts(self) -> dict[str, Any]:
    """What the result says of completions; {} of other clips."""
    if self.protocol.made != "completions":
      return {}
    _, given = self._completing()
    return {"given_frames": given.numbers, "baseline": given.baseline}

  def _completing(self) -> tuple[ScoredModel, completions_lib.Given]:
    """The model, and the frames that the protocol's task gives it."""
    if self.model is None:
      raise ValueError(
        f"--protocol={self.protocol.name} completes real clips by a model:"
        " leave --input out, and name the workdir of a generator"
      )
    task = self.protocol.task
    given = self.model.given_frames(task).tolist()
    return self.model, completions_lib.Given(task, given)

  def codes(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Ids of each clip."""
    model = self.model
    if model is None:
      raise ValueError("--protocol=codebook needs the workdir of a tokenizer")
    vocabulary = model.vocabulary  # raises without codes, before any is made

    def make(index):
      read, rows = real.read(index), {}
      count = len(read.index)
      if count:
        ids = model.encode(read.video).reshape(count, -1)
        values.check_ids("ids", ids, vocabulary)
        rows = {"ids": ids, "vocabulary": np.full((count, 1), vocabulary)}
      return rows_lib.Part(read.index, rows, read.failures)

    return self._rows(self._describe(made, "made"), num, make)

  def perturbed(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Features of decoded perturbed codes."""
    model = self.model
    if model is None:
      raise ValueError("--protocol=pfid needs the workdir of a tokenizer")
    bits = model.bits()

    def make(index):
      read, rows = real.read(index), {}
      if not len(read.index):
        return rows_lib.Part(read.index, rows, read.failures)
      ids = model.encode(read.video)
      for number, alpha in enumerate(protocol_table.ALPHAS):
        seed = (self.seed, int(index[0]), number)
        rng = np.random.default_rng(seed)
        output = model.decode(measures.perturb_ids(ids, bits, alpha, rng))
        pixels = pictures.to_uint8(
          output, self.protocol.uint8, "decoded codes", int(read.index[0])
        )
        rows[f"pool3_alpha_{alpha}"] = self._extract(pixels)["pool3"]
      return rows_lib.Part(read.index, rows, read.failures)

    subject = {**self._describe(made, "made"), "alphas": protocol_table.ALPHAS}
    subject |= {"delta": protocol_table.DELTA, "seed": self.seed}
    return self._rows(subject, num, make)


def _pairs(
  original: clips_lib.ClipsRead, output: clips_lib.ClipsRead
) -> tuple[clips_lib.ClipsRead, clips_lib.ClipsRead]:
  """The clips of each side that could be read on both."""
  both = np.intersect1d(original.index, output.index)
  original, output = (
    dataclasses.replace(
      side, video=side.video[np.isin(side.index, both)], index=both
    )
    for side in (original, output)
  )
  if len(both) and original.video.shape != output.video.shape:
    raise ValueError(
      f"originals {original.video.shape[1:4]} and reconstructions"
      f" {output.video.shape[1:4]} must have one (frames, height, width)"
    )
  return original, output


def _central_bilinear(video_BTHWC: np.ndarray, size: int) -> np.ndarray:
  """The central square, TF1 bilinear to size x size, rounded to uint8."""
  height, width = video_BTHWC.shape[2:4]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  square = video_BTHWC[:, :, top : top + side, left : left + side]
  resized = np.asarray(resize.tf1_bilinear(square, size, size))
  return np.rint(np.clip(resized, 0, 255)).astype(np.uint8)


def resize_rule(protocol: protocol_table.Protocol) -> str:
  """The resizing before and inside the feature network, in words."""
  rule = "none before the feature network's own"
  if protocol.resize:
    rule = (
      f"central square, TF1 bilinear to {protocol.resize} x"
      f" {protocol.resize}, rounded to uint8"
    )
  if protocol.network:
    network = feature_networks.NETWORKS[protocol.network]
    pixels = network.variants.get(protocol.variant, network.pixels)
    rule += f"; inside: {pixels}"
  return rule


def needed(real: Clips | None, protocol: protocol_table.Protocol) -> Clips:
  """The real clips; ValueError if there are none."""
  if real is None:
    raise ValueError(
      f"--protocol={protocol.name} compares with the originals of clips: give"
      " --reference=FILE_OR_FOLDER of them"
    )
  return real


def load_network(
  protocol: protocol_table.Protocol, weights: str | None
) -> networks.Extractor | lpips.Lpips | None:
  """The protocol's feature network, or LPIPS, or None.

  Raises:
    ValueError: weights that are missing, of another network, or not read.
  """
  if protocol.network:
    return networks.load(
      protocol.network, weights or "", variant=protocol.variant
    )
  if weights is None or protocol.measure != "pixels":
    if weights is not None:
      raise ValueError(
        f"--protocol={protocol.name} uses no network: leave --weights={weights}"
        " out"
      )
    return None
  return lpips.Lpips(weights)
