"""The schema of a JobSet, as far as docs/launch uses it, and a check by it.

Cut out of the one that JobSet v0.12.0 publishes (Apache 2.0), in
github.com/kubernetes-sigs/jobset, config/components/crd/bases/
jobset.x-k8s.io_jobsets.yaml; `metadata` is that of any object of Kubernetes. A
test compares it with that file, where one is at hand.
"""

from typing import Any

_STRING = {"type": "string"}
_INT32 = {"type": "integer", "format": "int32"}
_TEXTS = {"type": "object", "additionalProperties": _STRING}


def _list(items: dict) -> dict:
  return {"type": "array", "items": items}


def _object(*required: str, **properties: dict) -> dict:
  needed = {"required": list(required)} if required else {}
  return {"type": "object", "properties": properties, **needed}


METADATA = _object("name", name=_STRING, labels=_TEXTS, annotations=_TEXTS)
_FAILURE_RULE = _object(
  *("action", "name"),
  name=_STRING,
  action={
    "type": "string",
    "enum": [
      *("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
      *("RestartJob", "RestartJobAndIgnoreMaxRestarts"),
    ],
  },
  onJobFailureReasons=_list(_STRING),
)
_CONTAINER = _object(
  "name",
  name=_STRING,
  image=_STRING,
  command=_list(_STRING),
  securityContext=_object(runAsUser={"type": "integer", "format": "int64"}),
  resources=_object(
    limits={
      "type": "object",
      "additionalProperties": {"x-kubernetes-int-or-string": True},
    }
  ),
)
_POD = _object(
  "containers",
  restartPolicy=_STRING,
  terminationGracePeriodSeconds={"type": "integer", "format": "int64"},
  nodeSelector=_TEXTS,
  containers=_list(_CONTAINER),
)
_POD_FAILURE_RULE = _object(
  "action",
  action=_STRING,
  onPodConditions=_list(_object("type", type=_STRING, status=_STRING)),
)
_JOB = _object(
  "template",
  parallelism=_INT32,
  completions=_INT32,
  backoffLimit=_INT32,
  podFailurePolicy=_object("rules", rules=_list(_POD_FAILURE_RULE)),
  template=_object(spec=_POD),
)
SPEC = _object(
  failurePolicy=_object(maxRestarts=_INT32, rules=_list(_FAILURE_RULE)),
  replicatedJobs=_list(
    _object(
      *("name", "template"),
      name=_STRING,
      replicas=_INT32,
      template=_object(spec=_JOB),
    )
  ),
)
_JOBSET = _object(
  *("apiVersion", "kind", "metadata", "spec"),
  apiVersion={"type": "string", "enum": ["jobset.x-k8s.io/v1alpha2"]},
  kind={"type": "string", "enum": ["JobSet"]},
  metadata=METADATA,
  spec=SPEC,
)
_TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def faults(value: Any, schema: dict = _JOBSET, at: str = "it") -> list[str]:
  """Where a value is not as a schema says, which names all the fields."""
  if schema.get("x-kubernetes-int-or-string"):
    return [] if type(value) in (int, str) else [f"{at} is no number"]
  if type(value) is not _TYPES[schema["type"]]:
    return [f"{at} is no {schema['type']}"]
  if "enum" in schema and value not in schema["enum"]:
    return [f"{at} is none of {schema['enum']}"]
  if isinstance(value, list):
    inner = [(x, schema["items"], f"{at}[{i}]") for i, x in enumerate(value)]
  elif isinstance(value, dict):
    fields, more = (
      schema.get("properties", {}),
      schema.get("additionalProperties"),
    )
    missing = [x for x in schema.get("required", []) if x not in value]
    unknown = [x for x in value if x not in fields and more is None]
    if missing or unknown:
      return [f"{at} lacks {missing} and has unknown {unknown}"]
    inner = [(v, fields.get(k, more), f"{at}.{k}") for k, v in value.items()]
  else:
    inner = []
  return [fault for item in inner for fault in faults(*item)]


def differences(ours: Any, published: Any, at: str = "it") -> list[str]:
  """Where a part of the schema is not what a published one says."""
  if isinstance(ours, dict):
    missing = [f"{at} has no {name}" for name in ours if name not in published]
    pairs = [
      (ours[k], published[k], f"{at}.{k}") for k in ours if k in published
    ]
    return missing + [x for pair in pairs for x in differences(*pair)]
  if isinstance(ours, list):  # required fields, and values
    return [] if sorted(ours) == sorted(published) else [f"{at}: {published}"]
  return [] if ours == published else [f"{at} is {published}"]
