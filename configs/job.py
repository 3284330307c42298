"""Fields on how a job is run: none changes what a run is an experiment on.

They are sections of `base.common`, and a resumed run may change each of them.
"""

import ml_collections


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
