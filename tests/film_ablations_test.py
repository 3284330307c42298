"""Tests of benchmarks/film_ablations.py: its changes and its table."""

import json

import numpy as np

from benchmarks import film_ablations
from configs import tokenizer_image


def test_every_change_is_of_a_field_that_the_row_has():
  row = tokenizer_image.get_config("film64_small")
  row.update_from_flattened_dict(film_ablations.BASE)
  names = set(film_ablations.CHANGES)
  folders = {film_ablations._folder_name(name) for name in names}
  assert len(folders) == len(names)
  for name, changes in film_ablations.CHANGES.items():
    config = row.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)  # raises for another type
    assert config.keys() == row.keys()
    changed = config.to_json() != row.to_json()
    assert changed == (name != "LFQ"), name


def _store(folder, rows, **results):
  (folder / "results").mkdir(parents=True)
  text = "".join(json.dumps(row) + "\n" for row in rows)
  (folder / "metrics.jsonl").write_text(text)
  for name, metrics in results.items():
    path = folder / "results" / f"{name}.json"
    path.write_text(json.dumps({"step": 20, "metrics": metrics}))


def test_seconds_are_those_of_the_steps_and_a_resumed_step_counts_once(
  tmp_path,
):
  rows = [
    {"step": 10, "steps_per_second": 2.0, "generator/perceptual": 1.5},
    {"step": 20, "steps_per_second": 9.0, "generator/perceptual": 1.4},
    {"step": 20, "steps_per_second": 5.0, "generator/perceptual": 1.3},
    {"step": 20, "eval/held_out_reconstruction/psnr": 21.0},
  ]
  _store(
    tmp_path,
    rows,
    held_out_reconstruction={"psnr": 21.0, "ssim": 0.5},
    held_out_codebook={"entropy_bits": 9.5},
  )
  scores = film_ablations._scores(tmp_path)
  np.testing.assert_allclose(scores["seconds"], 10 / 2 + 10 / 5)
  assert scores["perceptual"] == 1.3
  head, rule, row = film_ablations.table({"as it is": scores}).splitlines()
  assert head.count("|") == rule.count("|") == row.count("|")
  assert row == "| as it is | 21.00 | 0.500 | 1.300 | 9.50 | 7 |"


def test_a_run_that_diverged_has_a_row_without_scores(tmp_path):
  rows = [{"step": 1, "steps_per_second": 2.0, "generator/loss": 0.5}]
  _store(tmp_path, rows)
  assert not film_ablations._diverged(tmp_path)
  rows.append({"step": 2, "steps_per_second": 2.0, "generator/loss": np.nan})
  (tmp_path / "results").rmdir()
  _store(tmp_path, rows)
  assert film_ablations._diverged(tmp_path)
  scores = film_ablations._scores(tmp_path)
  row = film_ablations.table({"fast": scores}).splitlines()[-1]
  assert row == "| fast | nan | nan | nan | nan | 1 |"
