"""Tests of docs/launch.md and docs/launch: commands, costs, schedulers' files.

`commands.faults` of docs_test.py looks at our own commands in these pages.
"""

import os
import pathlib
import re
import shlex
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml

from configs import masked
from tests import commands
from tests import jobset
from tests import markdown

_ROOT = pathlib.Path(__file__).parents[1]
_PLACES = sorted(path.stem for path in _ROOT.glob("docs/launch/*.md"))
_STEPS = (
  *("stage data", "tokenize", "compile report", "launch", "watch", "resume"),
  *("evaluate", "export"),
)
_COST = re.compile(
  r"([\d,]+) x ([\d,]+) x ([\d.]+) / 3600 = ([\d.]+) (?:chip|GPU)-hours"
)
_PUBLISHED = (
  "https://raw.githubusercontent.com/kubernetes-sigs/jobset/v0.12.0/config/"
  "components/crd/bases/jobset.x-k8s.io_jobsets.yaml"
)


def _text(place: str) -> str:
  return (_ROOT / "docs/launch" / f"{place}.md").read_text()


def _block(place: str, language: str) -> str:
  page = markdown.parse(_text(place))
  (text,) = [text for name, text in page.code if name == language]
  return text


def _lines(text: str) -> list[str]:
  """Commands of a page that are in no file."""
  page = markdown.parse(text)
  code = tuple(x for x in page.code if x[0] == "")
  return markdown.Page(code, "").lines_of_code


@pytest.mark.parametrize("place", _PLACES)
def test_each_place_has_all_steps_a_cost_and_what_goes_wrong(place):
  text = " ".join(_text(place).lower().split())
  assert [step for step in _STEPS if step not in text] == []
  assert "**cost.**" in text and "## what goes wrong" in text
  assert len(_text(place).splitlines()) <= 150


@pytest.mark.parametrize("place", _PLACES)
def test_the_programs_of_others_take_every_command(place):
  lines = _lines(_text(place))
  assert len(lines) >= 5
  assert [x for line in lines for x in commands.foreign_faults(line)] == []


@pytest.mark.parametrize(
  "line, fault",
  [
    ("xpk workload create --cluster=A --tpu-type=B --command=C", "--workload"),
    ("xpk cluster create --cluster=A --tpu-type=B --spots", "--spots"),
    ("gcloud compute tpus tpu-vm create A --version=B", "needs --zone"),
    ("kubectl apply jobset.yaml", "needs --filename"),
    ("srun --kill-on-error magvit --distributed", "--kill-on-error"),
    ("qsub job.sh", "no program"),
  ],
)
def test_a_command_that_others_would_refuse_is_noticed(line, fault):
  (message,) = commands.foreign_faults(line)
  assert fault in message


@pytest.mark.parametrize("place", _PLACES)
def test_the_costs_are_their_arithmetic(place):
  text = " ".join(_text(place).split())
  costs = _COST.findall(text)
  assert costs
  guide = (_ROOT / "docs/launch.md").read_text()
  measured = (_ROOT / "docs/plan_a_job.md").read_text()
  for chips, steps, seconds, hours in costs:
    chips, count = int(chips.replace(",", "")), int(steps.replace(",", ""))
    digits = len(hours.partition(".")[2])
    assert f"{chips * count * float(seconds) / 3600:.{digits}f}" == hours
    assert masked.get_config("ucf101").num_steps % count == 0
    assert f"{seconds} s" in measured or f"**{seconds}**" in measured
    assert hours in guide


def test_the_jobset_is_as_its_schema_says():
  described = yaml.safe_load(_block("jobset", "yaml"))
  assert jobset.faults(described) == []
  (job,) = described["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  rows, columns = map(int, topology.split("x"))
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert spec["parallelism"] == spec["completions"] == rows * columns // chips
  assert commands.faults(shlex.join(container["command"])) == []
  (rule,) = described["spec"]["failurePolicy"]["rules"]
  assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


@pytest.mark.parametrize(
  "change, fault",
  [
    (("kind: JobSet", "kinds: JobSet"), "kinds"),
    (("kind: JobSet", "kind: Job"), "it.kind is none of ['JobSet']"),
    (("backoffLimit: 0", "backoffLimit: none"), "backoffLimit is no integer"),
    (("replicas: 1", "replicas: 1\n    volumes: []"), "volumes"),
    (("name: preempted", ""), "lacks ['name']"),
    (("IgnoreMaxRestarts", ""), "action is"),
    (('"true"', "true"), "gke-spot is no string"),
    (("google.com/tpu: 4", "google.com/tpu: 4.5"), "tpu is no number"),
  ],
)
def test_a_jobset_that_would_be_refused_is_noticed(change, fault):
  old, new = change
  if fault == "action is":
    old, new = "RestartJobSetAndIgnoreMaxRestarts", "RestartAlways"
  text = _block("jobset", "yaml")
  assert old in text
  (message,) = jobset.faults(yaml.safe_load(text.replace(old, new)))
  assert fault in message


@pytest.mark.long
def test_the_schema_is_part_of_the_published_one():
  """JOBSET_CRD names the file, where GitHub cannot be reached."""
  if "JOBSET_CRD" in os.environ:
    text = pathlib.Path(os.environ["JOBSET_CRD"]).read_text()
  else:
    try:
      with urllib.request.urlopen(_PUBLISHED, timeout=30) as answer:
        text = answer.read().decode()
    except urllib.error.URLError as error:
      pytest.skip(f"{_PUBLISHED}: {error}; JOBSET_CRD names a file")
  (version,) = [
    version
    for version in yaml.safe_load(text)["spec"]["versions"]
    if version["name"] == "v1alpha2"
  ]
  published = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
  assert jobset.differences(jobset.SPEC, published) == []


@pytest.mark.parametrize(
  "code, restarts, requeued",
  [
    (0, 0, False),
    (1, 0, False),
    (143, 3, True),
    (75, 0, True),
    (143, 50, False),
  ],
)
def test_the_script_for_slurm_requeues_what_can_go_on(
  code, restarts, requeued, tmp_path
):
  script = _block("slurm", "bash")
  options = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
  assert options and not commands.foreign_faults(f"sbatch {' '.join(options)}")
  for name, act in (("srun", f"exit {code}"), ("scontrol", "echo $0 $@")):
    (tmp_path / name).write_text(f"#!/bin/bash\n{act}\n")
    (tmp_path / name).chmod(0o755)
  job = {"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": str(restarts)}
  ended = subprocess.run(
    ["bash"],
    input=script,
    env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **job},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == code
  assert ended.stdout.endswith("scontrol requeue 17\n") == requeued
