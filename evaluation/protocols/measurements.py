"""From clips to the rows of numbers that a protocol's scores are made of."""

from collections.abc import Callable
import dataclasses
import hashlib
import json
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from evaluation.metrics import lpips
from evaluation.protocols import clips as clips_lib
from evaluation.protocols import measures
from evaluation.protocols import networks
from evaluation.protocols import table as protocol_table
from evaluation.protocols.clips import Clips
from evaluation.protocols.scored_model import ScoredModel
from models.features import resize
from storage import rows as rows_lib


@dataclasses.dataclass(frozen=True)
class Work:
  """How rows are made: by which networks, in what parts, kept where."""

  workdir: str
  protocol: protocol_table.Protocol
  network: Callable[..., Any] | None  # features.Extractor, or lpips.Lpips
  model: ScoredModel | None
  part_size: int
  seed: int
  collective: bool

  def made(self, made: Clips, real: Clips | None, num: int) -> rows_lib.Rows:
    """Of the clips that are measured, what the protocol's measure reads."""
    of_measure = {
      "pixels": self.pixels,
      "codes": self.codes,
      "perturbed_fid": self.perturbed,
    }
    if self.protocol.measure in of_measure:
      return of_measure[self.protocol.measure](made, real, num)
    return self.features(made, num, "made")

  def _rows(self, of, num, make) -> rows_lib.Rows:
    text = json.dumps(
      {**of, "num": num, "part_size": self.part_size}, default=str
    )
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = os.path.join(self.workdir, "features", f"{of['name']}_{key}")
    of = json.loads(json.dumps(of, default=str))
    try:
      return rows_lib.compute(
        folder, of, num, self.part_size, make, self.collective
      )
    except OSError as error:
      raise ValueError(f"cannot keep features in {folder}: {error}") from error

  def _of(self, clips: Clips, side: str) -> dict[str, Any]:
    protocol = self.protocol
    return {
      "name": f"{protocol.name}_{side}",
      "clips": clips.of,
      "frames": protocol.frames,
      "resize": protocol.resize,
      "network": protocol.network,
      "weights": getattr(self.network, "weights_sha256", None),
    }

  def features(self, clips: Clips, num: int, side: str) -> rows_lib.Rows:
    """Features of clips; `side` is "made" or "real"."""

    def make(index):
      video, kept, failures = clips.read(index)
      rows = self._extract(video) if len(kept) else {}
      return rows_lib.Part(kept, rows, failures)

    return self._rows(self._of(clips, side), num, make)

  def _extract(self, video_BTHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Features; of clips that all processes hold, each computes its share."""
    if not self.collective or jax.process_count() == 1:
      return self.network(self._prepared(video_BTHWC))
    count = len(video_BTHWC)
    size = -(-count // jax.process_count())
    place = (jax.process_index() * size + np.arange(size)) % count
    own = self.network(self._prepared(video_BTHWC[place]))
    shared = multihost_utils.process_allgather(own, tiled=True)
    return {name: np.asarray(x)[:count] for name, x in shared.items()}

  def _prepared(self, video_BTHWC: np.ndarray) -> np.ndarray:
    """Pixels as the feature network takes them."""
    protocol = self.protocol
    video = video_BTHWC[:, : protocol.frames or None]
    if protocol.resize:
      video = _central_bilinear(video, protocol.resize)
    return video[:, 0] if protocol.network == "inception" else video

  def _pairs(self, made, real, index):
    video, kept, failures = real.read(index)
    output, also, others = made.read(index)
    both = np.intersect1d(kept, also)
    video, output = video[np.isin(kept, both)], output[np.isin(also, both)]
    if video.shape != output.shape:
      raise ValueError(
        f"originals {video.shape[1:4]} and reconstructions"
        f" {output.shape[1:4]} (frames, height, width) must be of one shape"
      )
    return video, output, both, {**failures, **others}

  def pixels(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Scores of each clip against its original."""

    def make(index):
      video, output, kept, failures = self._pairs(made, real, index)
      rows = {}
      if len(kept):
        rows = measures.pixel_scores(video, output)
        if self.network is not None:
          rows["lpips"] = self.network(video, output)
      return rows_lib.Part(kept, rows, failures)

    of = {**self._of(made, "made"), "originals": real.of}
    return self._rows(of, num, make)

  def codes(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Ids of each clip."""
    if self.model is None:
      raise ValueError("--protocol=codebook needs the workdir of a tokenizer")

    def make(index):
      video, kept, failures = real.read(index)
      ids = self.model.encode(video).reshape(len(kept), -1)
      rows = {"ids": ids, "vocabulary": np.full((len(kept), 1), 0)}
      rows["vocabulary"] += self.model.vocabulary
      return rows_lib.Part(kept, rows, failures)

    return self._rows(self._of(made, "made"), num, make)

  def perturbed(self, made: Clips, real: Clips, num: int) -> rows_lib.Rows:
    """Features of decoded perturbed codes."""
    if self.model is None:
      raise ValueError("--protocol=pfid needs the workdir of a tokenizer")
    bits = self.model.bits()

    def make(index):
      video, kept, failures = real.read(index)
      ids, rows = self.model.encode(video), {}
      for number, alpha in enumerate(protocol_table.ALPHAS):
        seed = (self.seed, int(index[0]), number)
        rng = np.random.default_rng(seed)
        output = self.model.decode(measures.perturb_ids(ids, bits, alpha, rng))
        pixels = clips_lib.to_uint8(output, self.protocol.uint8)
        rows[f"pool3_alpha_{alpha}"] = self._extract(pixels)["pool3"]
      return rows_lib.Part(kept, rows, failures)

    of = {**self._of(made, "made"), "alphas": protocol_table.ALPHAS}
    of |= {"delta": protocol_table.DELTA, "seed": self.seed}
    return self._rows(of, num, make)


def _central_bilinear(video_BTHWC: np.ndarray, size: int) -> np.ndarray:
  """The central square, TF1 bilinear to size x size, rounded to uint8."""
  height, width = video_BTHWC.shape[2:4]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  square = video_BTHWC[:, :, top : top + side, left : left + side]
  resized = np.asarray(resize.tf1_bilinear(square, size, size))
  return np.rint(np.clip(resized, 0, 255)).astype(np.uint8)


def resize_rule(protocol: protocol_table.Protocol) -> str:
  rule = "none before the feature network's own"
  if protocol.resize:
    rule = (
      f"central square, TF1 bilinear to {protocol.resize} x"
      f" {protocol.resize}, rounded to uint8"
    )
  inside = {
    "inception": "; inside: TF1 bilinear to 299, (x - 128) / 128",
    "i3d": "; inside: TF1 bilinear to 224, 2 x / 255 - 1",
    "c3d": "; inside: corner-aligned bilinear to 112",
  }
  return rule + inside.get(protocol.network, "")


def load_network(protocol: protocol_table.Protocol, weights: str | None):
  if protocol.network:
    return networks.load(protocol.network, weights or "")
  if weights is None or protocol.measure != "pixels":
    if weights is not None:
      raise ValueError(f"--protocol={protocol.name} reads no --weights")
    return None
  return lpips.Lpips(weights)
