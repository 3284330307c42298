"""Fields on how a job is run: none changes what a run is an experiment on.

They are sections of `base.common`, and a resumed run may change each of them.
"""

import ml_collections


def mesh() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  # Slices of TPUs, which split the batch, too; -1: all there are. GPUs and CPUs
  # are in one, or in so many of consecutive devices.
  c.slices = -1
  # Devices of a slice that split the batch; -1: all the other axes leave.
  c.data = -1
  c.fsdp = 1  # devices that split both the parameters and the batch
  c.tensor = 1  # devices that split the work of each layer, by `rules`
  # Split of parameters by path: (regex, a mesh axis or None for each of the
  # last dimensions); the first match counts. Large arrays are split over fsdp
  # as well.
  c.rules = ()
  return c


def watch() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  # Seconds from one heartbeat in WORKDIR/heartbeat.json to the next.
  c.heartbeat_seconds = 15.0
  # Seconds without a training step after which a run counts as hung and ends,
  # with the exit code 75; ten times as many before the first step, in saves and
  # in evaluations. 0: never.
  c.hang_seconds = 1800.0
  # Steps that may be left out because a metric is not finite, or by `spike`;
  # they change no weight. The next that is not finite ends the run.
  c.skips = 0
  # Loss, the first that progress lines show, above which a step is left out, as
  # a multiple of its running average; 0: none is.
  c.spike = 0.0
  return c


def evaluation() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.protocols = ()  # names in evaluation/protocols/table.py
  c.num = 256  # clips of each protocol; 0: its own number of them
  # File of Inception's weights, by models.weights.convert, for its protocols.
  c.inception_weights = ""
  c.i3d_weights = ""  # file of I3D's weights, likewise
  c.c3d_weights = ""  # file of C3D's weights, likewise
  c.efficientnet_lite0_weights = ""  # by models.weights.fetch
  c.squeezenet_weights = ""  # by models.weights.fetch
  c.lpips_weights = ""  # for LPIPS among scores of reconstructions
  return c
