"""Tests of the files in docs/launch.md that schedulers read."""

import pathlib
import subprocess

import pytest
import yaml

from configs import masked
from tests import markdown

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = (_ROOT / "docs/launch.md").read_text()

_TEXTS = {str: str}  # names and values, as of annotations
_CONTAINER = {
  "name": str,
  "image": str,
  "command": [str],
  "resources": {"limits": {str: int}},
}
_POD = {
  "restartPolicy": str,
  "terminationGracePeriodSeconds": int,
  "nodeSelector": _TEXTS,
  "containers": [_CONTAINER],
}
_JOB = {
  "parallelism": int,
  "completions": int,
  "backoffLimit": int,
  "template": {"spec": _POD},
}
# The fields that we use of jobset.x-k8s.io/v1alpha2 and of batch/v1, by their
# documentation. All are needed here, and others are unknown.
_JOBSET = {
  "apiVersion": str,
  "kind": str,
  "metadata": {"name": str, "annotations": _TEXTS},
  "spec": {
    "failurePolicy": {"maxRestarts": int},
    "replicatedJobs": [
      {"name": str, "replicas": int, "template": {"spec": _JOB}}
    ],
  },
}


def _faults(value, schema, at="it"):
  """Where a value is not as a schema of types, lists and dicts says."""
  if isinstance(schema, type):
    return [] if type(value) is schema else [f"{at} is no {schema.__name__}"]
  if type(value) is not type(schema):
    return [f"{at} is no {type(schema).__name__}"]
  if isinstance(schema, list):
    pairs = [(x, schema[0], f"{at}[{i}]") for i, x in enumerate(value)]
  elif str in schema:
    pairs = [(x, schema[str], f"{at}.{name}") for name, x in value.items()]
  else:
    unlike = sorted(schema.keys() ^ value.keys())
    if unlike:
      return [f"{at} has {sorted(value)}: {unlike}"]
    pairs = [(value[name], schema[name], f"{at}.{name}") for name in schema]
  return [fault for pair in pairs for fault in _faults(*pair)]


def _block(language):
  (text,) = [x for name, x in markdown.parse(_PAGE).code if name == language]
  return text


def test_the_jobset_has_the_fields_that_are_documented():
  jobset = yaml.safe_load(_block("yaml"))
  assert _faults(jobset, _JOBSET) == []
  (job,) = jobset["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  rows, columns = map(int, topology.split("x"))
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert spec["parallelism"] == spec["completions"] == rows * columns // chips


@pytest.mark.parametrize(
  "change, fault",
  [
    (("kind: JobSet", "kinds: JobSet"), "kinds"),
    (("backoffLimit: 0", "backoffLimit: none"), "backoffLimit is no int"),
    (("replicas: 1", "replicas: 1\n    volumes: []"), "volumes"),
  ],
)
def test_a_jobset_that_would_be_refused_is_noticed(change, fault):
  text = _block("yaml").replace(*change)
  (message,) = _faults(yaml.safe_load(text), _JOBSET)
  assert fault in message


def test_the_script_for_slurm_is_a_script():
  text = _block("bash")
  assert text.startswith("#!/bin/bash\n#SBATCH ")
  subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_cost_on_the_page_is_its_arithmetic():
  steps = masked.get_config("ucf101").num_steps
  hours = 256 * steps * 0.0198 / 3600
  text = " ".join(_PAGE.split())
  assert f"256 x {steps:,} x 0.0198 / 3600 = {hours:,.0f} chip-hours" in text
