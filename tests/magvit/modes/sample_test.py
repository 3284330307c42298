"""Tests of magvit/modes/sample.py: what is written, and that it goes on."""

import dataclasses
import json
import os
import types

import jax
import numpy as np
import pytest

from evaluation.protocols import clips as clips_lib
from evaluation.protocols import table as protocol_table
from evaluation.show import pictures
from magvit import mesh as mesh_lib
from magvit.modes import sample as sample_mode
from magvit.scoring import model as scored_model
from magvit.workdir import folder as workdir_lib
from tests import tiny


@pytest.fixture
def config(tiny_generator_workdir):
  return workdir_lib.read_config(tiny_generator_workdir)


@pytest.fixture
def calls(monkeypatch):
  """Replaces the model by noise; gives the arguments of its calls."""
  calls = []
  _clips_of((5, 16, 16), monkeypatch)

  def sampler(*_):
    def run(task, label, video, seed):
      calls.append((task, label, video, seed))
      return {"video": np.random.default_rng(seed).random(video.shape)}

    return run

  monkeypatch.setattr(scored_model, "sampler", sampler)
  return calls


def _read(folder):
  with np.load(os.path.join(folder, "samples.npz")) as f:
    return dict(f)


def test_samples_of_a_trained_model_and_their_classes(
  tiny_generator_workdir, config, tmp_path
):
  request = sample_mode.Request("class_conditional", num=11)
  sample_mode.sample(
    config, tiny_generator_workdir, request, str(tmp_path / "a")
  )
  arrays = _read(tmp_path / "a")
  assert arrays["arr_0"].shape == (11, 5, 16, 16, 3)
  assert arrays["arr_0"].dtype == np.uint8
  assert arrays["arr_0"].std() > 0
  np.testing.assert_array_equal(arrays["arr_1"], [*range(10), 0])
  assert arrays["arr_1"].dtype == np.int64
  assert sorted(os.listdir(tmp_path / "a")) == [
    *("request.json", "samples.gif", "samples.mp4", "samples.npz"),
    "samples.png",
  ]
  with open(tmp_path / "a" / "request.json") as f:
    stored = json.load(f)
  assert stored["step"] == 1 and stored["sampling"]["steps"] == 3


def test_a_label_by_name_and_by_number(
  tiny_generator_workdir, config, calls, tmp_path
):
  for label in ("seven", "7"):
    request = sample_mode.Request("class_conditional", num=3, label=label)
    folder = str(tmp_path / label)
    sample_mode.sample(config, tiny_generator_workdir, request, folder)
    np.testing.assert_array_equal(_read(folder)["arr_1"], [7, 7, 7])


def test_an_interrupted_request_makes_the_missing_parts_only(
  tiny_generator_workdir, config, calls, tmp_path, monkeypatch
):
  request = sample_mode.Request("class_conditional", num=20)
  run = lambda name: sample_mode.sample(
    config, tiny_generator_workdir, request, str(tmp_path / name)
  )
  run("whole")
  assert len(calls) == 3  # parts of a batch of 8
  with monkeypatch.context() as m:
    m.setattr(sample_mode, "_join", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
      run("killed")
  os.remove(tmp_path / "killed" / "parts" / "000001.npz")
  # A power loss can leave a file of the right name that is cut.
  cut = tmp_path / "killed" / "parts" / "000002.npz"
  cut.write_bytes(cut.read_bytes()[:-30])
  calls.clear()
  run("killed")
  assert len(calls) == 2
  for name, array in _read(tmp_path / "whole").items():
    np.testing.assert_array_equal(_read(tmp_path / "killed")[name], array)
  calls.clear()
  run("killed")  # it is complete: nothing is made or written
  assert not calls


def test_processes_share_the_parts(
  tiny_generator_workdir, config, calls, tmp_path
):
  request = sample_mode.Request("class_conditional", num=20)
  run = lambda name, **processes: sample_mode.sample(
    config,
    tiny_generator_workdir,
    request,
    str(tmp_path / name),
    **processes,
  )
  run("alone")
  calls.clear()
  # Process 0 joins the parts, and comes last because nobody waits here.
  for index, made in ((2, 1), (1, 2), (0, 3)):
    run("together", process_index=index, process_count=3)
    assert len(calls) == made
  for name, array in _read(tmp_path / "alone").items():
    np.testing.assert_array_equal(_read(tmp_path / "together")[name], array)


def test_seeds_are_unrelated(tiny_generator_workdir, config, calls, tmp_path):
  for seed in (0, 1):
    request = sample_mode.Request("class_conditional", num=16, seed=seed)
    folder = str(tmp_path / str(seed))
    sample_mode.sample(config, tiny_generator_workdir, request, folder)
  assert len({seed for *_, seed in calls}) == 4


@pytest.mark.slow
def test_few_samples_are_the_first_of_many(
  tiny_generator_workdir, config, tmp_path, monkeypatch
):
  """A batch of 4 on one device, and one of 8 on eight, draw the same."""
  for num in (11, 4):
    request = sample_mode.Request("class_conditional", num=num)
    folder = str(tmp_path / str(num))
    sample_mode.sample(config, tiny_generator_workdir, request, folder)
    _on_devices(1, monkeypatch)
  few, many = _read(tmp_path / "4"), _read(tmp_path / "11")
  for name in ("arr_0", "arr_1"):
    np.testing.assert_array_equal(few[name], many[name][:4])


@pytest.mark.parametrize(
  "num, devices, batches",
  [
    (4, 1, [4]),  # not 24
    (4, 8, [8]),  # devices split a batch evenly
    (9, 2, [10]),
    (23, 8, [24]),
    (25, 8, [24, 24]),
    (50, 5, [25, 25]),  # no number of samples is refused on 5 devices
  ],
)
def test_few_samples_take_a_small_batch(
  tiny_generator_workdir,
  config,
  calls,
  tmp_path,
  monkeypatch,
  num,
  devices,
  batches,
):
  config.batch_size = 24
  _clips_of((5, 16, 16), monkeypatch)
  _on_devices(devices, monkeypatch)
  request = sample_mode.Request("class_conditional", num=num)
  folder = tmp_path / "out"
  sample_mode.sample(config, tiny_generator_workdir, request, str(folder))
  assert [len(label) for _, label, *_ in calls] == batches
  assert [video.shape for *_, video, _ in calls] == [
    (n, 5, 16, 16, 3) for n in batches
  ]
  assert len(_read(folder)["arr_0"]) == num
  record = json.loads((folder / "request.json").read_text())
  assert record["batch_size"] == batches[0]


@pytest.mark.parametrize("begun", [8, 24])
def test_a_folder_begun_with_another_batch_goes_on_with_it(
  tiny_generator_workdir, config, calls, tmp_path, monkeypatch, begun
):
  """8 is the batch of eight devices; 24 that of before batches were fitted."""
  config.batch_size = 24
  _clips_of((5, 16, 16), monkeypatch)
  request = sample_mode.Request("class_conditional", num=4)
  folder = tmp_path / "out"
  run = lambda: sample_mode.sample(
    config, tiny_generator_workdir, request, str(folder)
  )
  with monkeypatch.context() as m:
    m.setattr(sample_mode, "_join", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
      run()
  (folder / "parts" / "000000.npz").unlink()
  record = json.loads((folder / "request.json").read_text())
  (folder / "request.json").write_text(
    json.dumps({**record, "batch_size": begun})
  )
  _on_devices(1, monkeypatch)
  calls.clear()
  run()
  assert [len(label) for _, label, *_ in calls] == [begun]
  calls.clear()
  run()  # it is complete, and is no other request than before
  assert not calls


@pytest.mark.parametrize("begun, devices", [(3, 1), (25, 1), (12, 8), ("8", 8)])
def test_a_batch_that_cannot_go_on_is_refused(
  tiny_generator_workdir, config, calls, tmp_path, monkeypatch, begun, devices
):
  config.batch_size = 24
  _clips_of((5, 16, 16), monkeypatch)
  request = sample_mode.Request("class_conditional", num=4)
  folder = tmp_path / "out"
  run = lambda: sample_mode.sample(
    config, tiny_generator_workdir, request, str(folder)
  )
  run()
  record = json.loads((folder / "request.json").read_text())
  (folder / "request.json").write_text(
    json.dumps({**record, "batch_size": begun})
  )
  _on_devices(devices, monkeypatch)
  fitting = 4 if devices == 1 else 8
  with pytest.raises(
    ValueError, match=f"batch_size is {begun!r} there and {fitting} here"
  ):
    run()


def test_files_are_completed_in_turn(
  tiny_generator_workdir, config, calls, tmp_path
):
  """Files are resized and cropped; after the given frames the last repeats."""
  (tmp_path / "in").mkdir()
  clips = np.random.default_rng(0).integers(0, 256, (2, 6, 16, 16, 3), np.uint8)
  clips[..., 1:] = clips[..., :1]  # grey, as a GIF keeps 256 colours
  for i, clip in enumerate(clips):
    pictures.write_gif(tmp_path / "in" / f"{i}.gif", clip, scale=1)
  request = sample_mode.Request(
    "frame_prediction", num=3, input=str(tmp_path / "in")
  )
  folder = str(tmp_path / "out")
  sample_mode.sample(config, tiny_generator_workdir, request, folder)
  ((_, _, video, _),) = calls
  np.testing.assert_array_equal(video[:3, :3], clips[[0, 1, 0], :3])
  np.testing.assert_array_equal(
    video[:3, 3:], clips[[0, 1, 0], 2:3].repeat(2, 1)
  )
  assert set(_read(folder)) == {"arr_0", "uint8_rule"}  # the task has no class


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(task="upscaling"), "--task=upscaling must be one of"),
    (dict(num=0), "--num=0 must be at least 1"),
    (dict(label="cat"), "--label=cat must be in 0..9, or of .'zero'"),
    (dict(label="10"), "--label=10 must be in 0..9"),
    (dict(input="x"), "--input=x .*--task=class_conditional"),
    (dict(task="frame_prediction", label="1"), "--label=1 .*frame_prediction"),
    (dict(task="frame_prediction", input="none.gif"), "none.gif"),
  ],
)
def test_requests_that_cannot_be_served(
  tiny_generator_workdir, config, calls, tmp_path, change, message
):
  settings = {"task": "class_conditional", "num": 1, **change}
  request = sample_mode.Request(**settings)
  folder = tmp_path / "out"
  with pytest.raises((ValueError, OSError), match=message):
    sample_mode.sample(config, tiny_generator_workdir, request, str(folder))
  assert not folder.exists() and not calls


def test_folders_of_something_else_are_left_alone(
  tiny_generator_workdir, config, calls, tmp_path
):
  run = lambda folder, **settings: sample_mode.sample(
    config,
    tiny_generator_workdir,
    sample_mode.Request("class_conditional", 1, **settings),
    str(folder),
  )
  run(tmp_path / "mine")
  with pytest.raises(ValueError, match="samples: seed is 0 there and 1"):
    run(tmp_path / "mine", seed=1)
  (tmp_path / "notes").write_text("mine")
  with pytest.raises(
    ValueError, match=f"{tmp_path} is not empty .*no request.json"
  ):
    run(tmp_path)


def test_a_tokenizer_does_not_sample(tiny_tokenizer_workdir, tmp_path):
  request = sample_mode.Request("class_conditional", 1)
  with pytest.raises(
    ValueError, match="--mode=sample .* a generator, .*'tiny tok"
  ):
    sample_mode.sample(tiny.tokenizer(), tiny_tokenizer_workdir, request)


def _clips_of(shape, monkeypatch):
  """Lets the model, which is not opened, make clips of another shape."""
  opened = types.SimpleNamespace(step=1)
  monkeypatch.setattr(
    sample_mode.trained_lib, "open_trained", lambda *_: opened
  )
  monkeypatch.setattr(sample_mode.describe, "clip_shape", lambda _: shape)


def _on_devices(count, monkeypatch):
  mesh = mesh_lib.data_mesh(jax.devices()[:count])
  monkeypatch.setattr(sample_mode.mesh_lib, "local_mesh", lambda: mesh)


@pytest.mark.parametrize("frames, rule", [(1, "truncate"), (5, "round")])
def test_pixels_follow_the_rule_of_the_protocols_that_measure_them(
  tiny_generator_workdir, config, tmp_path, monkeypatch, frames, rule
):
  """Rounding makes 128 of a half, truncation 127; both routes agree."""
  half = lambda task, label, video, seed: {"video": np.full(video.shape, 0.5)}
  monkeypatch.setattr(scored_model, "sampler", lambda *_: half)
  shape = (frames, 16, 16)
  _clips_of(shape, monkeypatch)
  request = sample_mode.Request("class_conditional", num=3)
  folder = str(tmp_path / "out")
  sample_mode.sample(config, tiny_generator_workdir, request, folder)
  arrays = _read(folder)
  level = {"round": 128, "truncate": 127}[rule]
  assert (arrays["arr_0"] == level).all()
  assert str(arrays["uint8_rule"]) == rule
  with open(os.path.join(folder, "request.json")) as f:
    assert json.load(f)["uint8_rule"] == rule
  for protocol in protocol_table.PROTOCOLS.values():
    if protocol.made == "samples" and (protocol.frames == 1) == (frames == 1):
      made = clips_lib.generate_clips(
        *(half, {}, dataclasses.replace(protocol, task="class_conditional")),
        *(None, shape, 10, 3, 3, 0),
      )
      assert (made.read(np.arange(3)).video == level).all(), protocol.name
      assert made.origin["uint8"] == rule


def test_folders_of_before_the_rule_was_on_record_go_on_rounding(
  tiny_generator_workdir, config, calls, tmp_path, monkeypatch
):
  shape = (1, 16, 16)
  _clips_of(shape, monkeypatch)
  request = sample_mode.Request("class_conditional", num=20)
  folder = tmp_path / "out"
  run = lambda: sample_mode.sample(
    config, tiny_generator_workdir, request, str(folder)
  )
  with monkeypatch.context() as m:
    m.setattr(sample_mode, "_join", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
      run()
  record = json.loads((folder / "request.json").read_text())
  assert record.pop("uint8_rule") == "truncate"
  (folder / "request.json").write_text(json.dumps(record))
  for part in (folder / "parts").iterdir():
    part.unlink()
  run()
  assert str(_read(folder)["uint8_rule"]) == "round"
  seeds = [seed for *_, seed in calls[-3:]]
  expected = np.concatenate(
    [np.random.default_rng(s).random((8, *shape, 3)) for s in seeds]
  )[:20, 0]
  np.testing.assert_array_equal(
    _read(folder)["arr_0"], np.rint(np.float32(expected) * 255)
  )
  stored = json.loads((folder / "request.json").read_text())
  assert stored["uint8_rule"] == "round"


@pytest.mark.parametrize("text", ["[]", "7", '{"uint8_rule": {"a": 1}}'])
def test_a_request_of_another_form_is_named(
  text, tiny_generator_workdir, config, tmp_path
):
  (tmp_path / "request.json").write_text(text)
  request = sample_mode.Request("class_conditional", num=1)
  with pytest.raises(ValueError, match="request.json: .* name another folder"):
    sample_mode.sample(config, tiny_generator_workdir, request, str(tmp_path))


def test_a_diverged_generator_writes_no_samples(
  tiny_generator_workdir, config, tmp_path, monkeypatch
):
  def nan(task, label, video, seed):
    return {"video": np.where(np.arange(8) == 3, np.nan, 0.5)[:, *[None] * 4]}

  _clips_of((5, 16, 16), monkeypatch)
  monkeypatch.setattr(scored_model, "sampler", lambda *_: nan)
  request = sample_mode.Request("class_conditional", num=8)
  with pytest.raises(ValueError, match=r"samples\[3, 0, 0, 0, 0\] is nan"):
    sample_mode.sample(
      config, tiny_generator_workdir, request, str(tmp_path / "out")
    )
  assert not (tmp_path / "out" / "samples.npz").exists()
