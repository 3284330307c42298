"""Tests of a tokenizer without a vocabulary: what works, and what says no."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation.protocols import configured
import magvit
from magvit import mesh as mesh_lib
from magvit.compression import study as study_lib
from magvit.generators import masked
from magvit.modes import export as export_mode
from magvit.modes import import_weights as import_mode
from magvit.modes import tokenize as tokenize_mode
from magvit.scoring import model as scored_model
from magvit.tokenizer import describe
from magvit.tokenizer import fingerprint
from magvit.tokenizer import frames as frames_lib
from models.tokenizer import tokenizer as tokenizer_network
from tests import tiny
from tests import untrained


def _config(temporal=True):
  config = tiny.tokenizer(temporal)
  config.quantizer.name, config.quantizer.embedding_dim = "none", 6
  return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  workdir = str(tmp_path_factory.mktemp("tokenizer"))
  untrained.write(workdir, _config())
  return workdir


@pytest.fixture(scope="module")
def tokenizer(workdir):
  return magvit.load_tokenizer(workdir)


@pytest.fixture(scope="module")
def export(workdir, tmp_path_factory):
  path = str(tmp_path_factory.mktemp("export") / "tokenizer")
  export_mode.export(workdir, path, stablehlo=True)
  return path


@pytest.fixture(scope="module")
def video():
  return np.random.default_rng(0).random((2, 5, 16, 16, 3), np.float32)


def test_latents_take_the_place_of_ids(tokenizer, workdir, video):
  latents = tokenizer.encode(video)
  assert latents.shape == (2, 3, 8, 8, 6) and latents.dtype == jnp.float32
  _, net, params = describe.restore_newest_tokenizer(
    workdir, mesh_lib.local_mesh()
  )
  output, _, z = jax.jit(net)(params, tokenizer_network.to_float(video))
  np.testing.assert_allclose(latents, z, atol=1e-5)
  decoded = tokenizer.decode(latents)
  np.testing.assert_allclose(decoded, jnp.clip(output, 0, 1), atol=1e-5)
  assert (tokenizer.vocabulary, tokenizer.latent_channels) == (0, 6)
  assert "to 3 x 8 x 8 latents of 6 channels, strides" in repr(tokenizer)
  with pytest.raises(ValueError, match="^the number of bits needs ids, and "):
    _ = tokenizer.bits


@pytest.mark.parametrize(
  "latents, message",
  [
    (np.zeros((1, 3, 8, 8), np.int32), r"must be floats \(batch, .*, 6\)"),
    (np.zeros((1, 3, 8, 8, 5), np.float32), r"\(1, 3, 8, 8, 5\) and type"),
    (np.zeros((1, 3, 8, 8, 6), np.int32), "type int32 must be floats"),
    (np.zeros((0, 3, 8, 8, 6), np.float32), "none of them 0"),
    (np.full((1, 3, 8, 8, 6), np.nan, np.float32), "not finite"),
  ],
)
def test_other_latents_are_refused(tokenizer, latents, message):
  with pytest.raises(ValueError, match=f"^latents .*{message}"):
    tokenizer.decode(latents)


def test_frames_of_any_number_go_through(tokenizer):
  frames = np.random.default_rng(0).integers(0, 256, (4, 15, 18, 3), np.uint8)
  pairs = list(frames_lib.reconstruct_frames(tokenizer, iter(frames)))
  assert [output.shape for _, output in pairs] == 4 * [(15, 18, 3)]
  latents = np.concatenate(list(frames_lib.encode_frames(tokenizer, frames)))
  again = frames_lib.decode_frames(tokenizer, [latents], (4, 15, 18))
  for (_, output), frame in zip(pairs, again, strict=True):
    np.testing.assert_array_equal(output, frame)


def test_an_export_has_its_latents_and_comes_back(
  tokenizer, workdir, export, video, tmp_path
):
  latents = tokenizer.encode(video)
  np.testing.assert_array_equal(
    magvit.load_tokenizer(export).encode(video), latents
  )
  card = pathlib.Path(export, "README.md").read_text()
  assert "Latents: float32 (batch, t, h, w, 6)" in card
  imported = str(tmp_path / "imported")
  import_mode.import_weights("export", export, {}, imported)
  origin = json.loads(pathlib.Path(imported, "imported.json").read_text())
  assert origin["fingerprint"] == fingerprint.read_fingerprint(workdir)
  assert origin["ids"].endswith("no ids: latents are real numbers")
  encode, decode = (
    magvit.load_program(export, name) for name in ("encode", "decode")
  )
  coded = encode(video=video)["latents"]
  np.testing.assert_allclose(coded, latents, atol=1e-5)
  np.testing.assert_allclose(
    decode(latents=latents)["video"], tokenizer.decode(latents), atol=1e-5
  )


_NONE = r"needs ids, and 'tiny tokenizer' has none \(quantizer.name='none'\)"


def test_what_needs_ids_says_so_in_a_line(workdir, tmp_path):
  output = str(tmp_path / "output")
  with pytest.raises(ValueError, match=f"^workdir=.*tokenize {_NONE}.*lfq"):
    tokenize_mode.tokenize(workdir, output, num=2)
  study = study_lib.Study(workdirs=(workdir,), codecs=())
  with pytest.raises(ValueError, match=f"^--workdirs=.*compress {_NONE}"):
    study_lib._describe(study.workdirs[0])
  config = tiny.masked(workdir)
  with pytest.raises(ValueError, match=f"algorithm='masked' {_NONE}"):
    masked.MaskedGenerator.build(config, mesh_lib.local_mesh(), abstract=True)
  assert not pathlib.Path(output, "manifest.json").exists()


@pytest.mark.parametrize("protocol", ["codebook", "pfid"])
def test_protocols_of_codes_say_so_in_a_line(protocol):
  config = _config()
  config.evaluation.protocols = (protocol,)
  match = f"names '{protocol}', .* quantizer.name='none' has .*: remove it"
  with pytest.raises(ValueError, match=match):
    configured.check(config, ())
  model = scored_model.Model.__new__(scored_model.Model)  # no weights needed
  model.config = config
  read = {"codebook": lambda: model.vocabulary, "pfid": model.bits}[protocol]
  with pytest.raises(ValueError, match=f"^--protocol={protocol} needs"):
    read()
