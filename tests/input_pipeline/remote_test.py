"""Tests of training data in an object store: the same batches as of a disk."""

import fsspec
import pytest

from configs import datasets
from input_pipeline import pipeline
from input_pipeline import prepare
from input_pipeline import summary
from input_pipeline.sources import folders
from input_pipeline.sources import token_shards
from magvit.workdir import fields
from storage import shard_cache
from tests import batches as batches_lib
from tests import coded_clips
from tests import raw_data
from tests import tiny

_CLIPS = 30


@pytest.fixture(autouse=True)
def small_cache(monkeypatch, tmp_path):
  """A cache of 12 blocks, smaller than the shards of these tests."""
  monkeypatch.setattr(shard_cache, "BLOCK_BYTES", 2**12)
  monkeypatch.setattr(shard_cache, "_NAME_BYTES", 2**12)
  monkeypatch.setenv(shard_cache.GIGABYTES, str(12 * 2**13 / 1e9))
  monkeypatch.setenv(shard_cache.FOLDER, str(tmp_path / "cache"))
  return tmp_path / "cache"


def _check_bound(folder):
  files = [p for p in folder.rglob("*") if p.is_file()]
  held = [p for p in files if p.name[0] == "0"]
  assert 1 <= len(held) <= 12
  assert sum(p.stat().st_size for p in files) <= 12 * 2**13


@pytest.fixture
def media(tmp_path, in_this_process):
  """Shards of videos, and a copy of them at memory://data."""
  raw_data.ucf101(tmp_path / "raw", tmp_path / "raw")
  for split in ("train", "held_out"):
    listing = folders.listing("ucf101", str(tmp_path / "raw"), "", split, 1)
    prepare.prepare(
      listing, "ucf101", split, str(tmp_path / "media"), examples_per_shard=3
    )
  return tmp_path / "media", _copied(tmp_path / "media", "memory://media")


def _copied(folder, url):
  system = fsspec.filesystem("memory")
  if system.exists(url):
    system.rm(url, recursive=True)
  system.put(f"{folder}/", url, recursive=True)
  return url


def _dataset(path, **changes):
  c = tiny.tokenizer()
  datasets.ucf101(c)
  c.dataset.update({"path": str(path), "eval_examples": 2, **changes})
  return c.dataset


def test_clips_of_a_store_are_those_of_the_disk(media, small_cache):
  folder, url = media
  here, there = _dataset(folder), _dataset(url)
  batches_lib.assert_equal(
    batches_lib.take(there, 6, check=lambda: _check_bound(small_cache)),
    batches_lib.take(here, 6),
  )
  batches_lib.assert_equal(
    [b for b, _ in pipeline.eval_batches(there, "held_out", 2, 2)],
    [b for b, _ in pipeline.eval_batches(here, "held_out", 2, 2)],
  )
  assert pipeline.class_names(there) == pipeline.class_names(here)
  _check_bound(small_cache)
  clips = pipeline.source(there, "train"), pipeline.source(there, "held_out")
  assert f"shards in {url}" in "\n".join(summary.lines(there, *clips))


def test_a_mixture_may_name_stores(media):
  folder, url = media
  mixed = lambda path: _dataset(path, mixture=(f"1:{path}", f"2:{path}"))
  batches_lib.assert_equal(
    batches_lib.take(mixed(url), 4), batches_lib.take(mixed(folder), 4)
  )


@pytest.fixture
def tokens(tmp_path):
  folder = tmp_path / "tokens"
  folder.mkdir()
  coded_clips.write(folder, examples=_CLIPS, examples_per_shard=8)
  return folder


def _stored(folder):
  c = tiny.tokenizer().dataset
  c.update({"tokens": str(folder), "shuffle": True})
  return c


def test_tokens_of_a_store_are_those_of_the_disk(tokens, small_cache):
  url = _copied(tokens, "memory://tokens")
  there = batches_lib.take(
    _stored(url), 40, check=lambda: _check_bound(small_cache)
  )  # more than two epochs
  batches_lib.assert_equal(there, batches_lib.take(_stored(tokens), 40))


@pytest.mark.slow
def test_worker_processes_share_the_cache(tokens, small_cache):
  there = _stored(f"file://{tokens}")
  there.workers = 2
  batches_lib.assert_equal(
    batches_lib.take(there, 20), batches_lib.take(_stored(tokens), 20)
  )
  assert len(list(small_cache.rglob("lease"))) == 1


def test_shards_that_are_cut_or_absent_are_named(tokens):
  url = _copied(tokens, "memory://tokens")
  system = fsspec.filesystem("memory")
  name = f"{url}/tokens-00001-of-00004.arrayrecord"
  whole = system.cat_file(name)
  system.pipe_file(name, whole[: len(whole) // 2])
  with pytest.raises(
    ValueError, match=f"tokens-00001.* in {url} is damaged: expected bytes"
  ):
    token_shards.TokenShards(url)
  system.rm_file(name)
  with pytest.raises(ValueError, match=f"{url} lacks the shard tokens-00001"):
    token_shards.TokenShards(url)
  system.rm_file(f"{url}/tokens.json")
  with pytest.raises(ValueError, match=f"{url} holds no tokens.json"):
    token_shards.TokenShards(url)


def test_what_is_no_shards_is_refused_with_the_remedy(tmp_path):
  raw_data.ucf101(tmp_path / "raw", tmp_path / "raw")
  url = _copied(tmp_path / "raw", "memory://raw")
  with pytest.raises(
    ValueError, match=f"dataset.path={url} holds no shards.*prepare"
  ):
    pipeline.source(_dataset(url), "train")
  with pytest.raises(ValueError, match="memory://nothing' is no folder"):
    pipeline.source(_dataset("memory://nothing"), "train")


def test_configs_may_name_stores_for_data_alone():
  c = tiny.tokenizer()
  c.dataset.update({"path": "gs://b/x", "tokens": "s3://b/y"})
  c.dataset.mixture = ("1:gs://b/x",)
  read = fields.resolved(c).dataset
  assert (read.path, read.tokens) == ("gs://b/x", "s3://b/y")
  assert tuple(read.mixture) == ("1:gs://b/x",)
  c.dataset.lists = "gs://b/lists"
  with pytest.raises(ValueError, match="dataset.lists=gs://b/lists is an addr"):
    fields.resolved(c)
