"""The readers of files that others may have made, by name."""

from tests.fuzz import clips
from tests.fuzz import models
from tests.fuzz import planted
from tests.fuzz import reader

READERS = {
  each.name: each
  for each in (
    *clips.READERS,
    *models.READERS,
    *(
      reader.Reader(f"planted {name}", planted.make, read)
      for name, read in planted.READS.items()
    ),
  )
}
