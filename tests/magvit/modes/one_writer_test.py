"""Tests that no two jobs write in one folder, whichever mode they run."""

import os
import shutil

import pytest

from input_pipeline import prepare
from input_pipeline.sources import entries
from magvit.modes import evaluate
from magvit.modes import export
from magvit.modes import import_weights
from magvit.modes import reconstruct
from magvit.modes import sample
from magvit.modes import table
from magvit.modes import tokenize
from magvit.training import loop
from storage import lock
from tests import tiny


def _train(output, tokenizer, generator):
  loop.train(tiny.masked(tokenizer), output)


def _sample(output, tokenizer, generator):
  request = sample.Request("class_conditional", 4)
  sample.sample(tiny.masked(tokenizer), generator, request, output)


def _tokenize(output, tokenizer, generator):
  tokenize.tokenize(tokenizer, output, num=4)


def _import(output, tokenizer, generator):
  import_weights.import_weights("export", tokenizer, {}, output)


def _prepare(output, tokenizer, generator):
  prepare.prepare(entries.Listing((), ()), "classes", "train", output)


@pytest.mark.parametrize(
  "write, folder",
  [
    (_train, "."),
    (_sample, "."),
    (_tokenize, "."),
    (_import, "."),
    (_prepare, "train"),
  ],
)
def test_a_folder_in_use_is_refused_before_any_work(
  write, folder, tmp_path, tiny_tokenizer_workdir, tiny_generator_workdir
):
  output = tmp_path / "output"
  with lock.held(str(output / folder), "--mode=another"):
    before = sorted(output.rglob("*"))
    match = f"{output}.* is in use: --mode=another .process {os.getpid()} on"
    with pytest.raises(ValueError, match=match):
      write(str(output), tiny_tokenizer_workdir, tiny_generator_workdir)
    assert sorted(output.rglob("*")) == before
  assert not output.exists()


def test_an_export_is_of_one_writer_and_holds_no_lock(
  tmp_path, tiny_tokenizer_workdir
):
  output = tmp_path / "export"
  with lock.held(str(output), "--mode=export", beside=True):
    with pytest.raises(ValueError, match="--output=.*export is in use"):
      export.export(tiny_tokenizer_workdir, str(output))
  export.export(tiny_tokenizer_workdir, str(output))
  assert os.listdir(tmp_path) == ["export"]
  assert not [name for name in os.listdir(output) if name.startswith(".")]


def test_results_are_of_one_writer_beside_a_training(tmp_path):
  """A model may be evaluated while it trains, by each protocol once."""
  workdir = str(tmp_path)
  with (
    lock.held(workdir, "--mode=train"),
    evaluate._one_writer(workdir, "fvd", "--mode=evaluate --protocol=fvd"),
    evaluate._one_writer(workdir, "evaluate", "--mode=evaluate"),
    pytest.raises(ValueError, match="results/fvd is in use"),
    evaluate._one_writer(workdir, "fvd", "--mode=evaluate --protocol=fvd"),
  ):
    pass
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  "mode, options",
  [(sample, table.Sample()), (reconstruct, table.Reconstruct())],
)
def test_pictures_are_of_one_writer(
  mode, options, tmp_path, tiny_tokenizer_workdir, tiny_generator_workdir
):
  """They have fixed names: a second job would overwrite those of the first."""
  source = {sample: tiny_generator_workdir, reconstruct: tiny_tokenizer_workdir}
  workdir = tmp_path / "workdir"
  workdir.mkdir()
  shutil.copy(os.path.join(source[mode], "config.json"), workdir)
  with (
    lock.held(str(workdir / "samples"), "--mode=another", beside=True),
    pytest.raises(ValueError, match="samples is in use: --mode=another"),
  ):
    mode.run(options, None, str(workdir))
