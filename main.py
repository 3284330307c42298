"""Entry point: one experiment, one workdir, one mode.

  python main.py --config=configs/tokenizer_video.py:digits --workdir=DIR
  python main.py --workdir=DIR --mode=evaluate
  python main.py --workdir=DIR --mode=evaluate --protocol=NAME --weights=FILE
  python main.py --workdir=DIR --mode=reconstruct --input=FILE_OR_FOLDER
  python main.py --workdir=DIR --mode=sample --task=TASK --num=N
  python main.py --workdir=DIR --mode=tokenize --output=FOLDER --num=N
  python main.py --workdir=DIR --mode=export --output=FOLDER
  python main.py --config=FILE:ARG --workdir=DIR --mode=compile \
    --topology=v5e:16x16
  python main.py --workdir=DIR --mode=import --source=open_magvit2 --input=FILE

--config may be left out once a workdir was trained: it keeps its own.
"""

import sys

from absl import app
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from configs import tokenizer_image
from configs import tokenizer_video
from evaluation.protocols import run as protocol_run
from magvit import command_line
from magvit.cost import report as cost_report
from magvit.modes import evaluate as evaluate_mode
from magvit.modes import export as export_mode
from magvit.modes import import_weights as import_mode
from magvit.modes import reconstruct as reconstruct_mode
from magvit.modes import sample as sample_mode
from magvit.modes import tokenize as tokenize_mode
from magvit.training import distributed
from magvit.training import loop
from magvit.training import metrics as metrics_lib
from magvit.training import preemption
from magvit.workdir import folder as workdir_lib

_MODES = (
  *("train", "evaluate", "sample", "reconstruct", "tokenize"),
  *("export", "import", "compile"),
)
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:ARG to run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The run.", required=True)
_MODE = flags.DEFINE_enum("mode", "train", _MODES, "What to do.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join a job.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Its HOST:PORT.")
_PROCESSES = flags.DEFINE_integer("processes", None, "How many it has.")
_PROCESS = flags.DEFINE_integer("process", None, "The number of this one.")
_SOURCE = flags.DEFINE_enum(
  "source", None, import_mode.SOURCES, "Whose weights."
)
_INPUT = flags.DEFINE_string("input", None, "Files to read.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.")
_STABLEHLO = flags.DEFINE_bool("stablehlo", False, "Export programs, too.")
_NUM = flags.DEFINE_integer("num", None, "How many clips.")
_SPLIT = flags.DEFINE_string("split", "train", "What to tokenize.")
_TASKS = flags.DEFINE_list("tasks", None, "Whose conditions to tokenize.")
_TASK = flags.DEFINE_string("task", None, "What to sample.")
flags.DEFINE_string("label", None, "Class, by number or name.")
flags.DEFINE_integer("seed", 0, "Of the samples.")
flags.DEFINE_integer("steps", None, "Of sampling.")
_PROTOCOL = flags.DEFINE_string("protocol", None, "Of a table; see README.")
flags.DEFINE_string("reference", None, "Real clips, statistics.")
flags.DEFINE_string("weights", None, "Of the feature network.")
flags.DEFINE_integer("folds", None, "Of the protocol.")
flags.DEFINE_float("guidance", None, "Of sampling; 0 is none.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "TPUs to compile for.")
_MODES_OF = {  # flag -> modes that read it
  "source": ("import",),
  "input": ("evaluate", "import", "reconstruct", "sample"),
  "output": ("export", "sample", "tokenize"),
  "num": ("evaluate", "sample", "tokenize"),
  "stablehlo": ("export",),
  "topology": ("compile",),
  "seed": ("evaluate", "sample"),
  **dict.fromkeys(("protocol", "reference", "weights", "folds"), ("evaluate",)),
  **dict.fromkeys(("split", "tasks"), ("tokenize",)),
  **dict.fromkeys(("task", "label", "steps", "guidance"), ("sample",)),
}
_NEEDED = {  # mode -> flags it cannot do without
  "train": {"config": "FILE:ARG"},
  "compile": {"config": "FILE:ARG", "topology": "NAME, like v5e:16x16"},
  "export": {"output": "FOLDER"},
  "tokenize": {"output": "FOLDER"},
}
_TOKENIZERS = {
  "image": tokenizer_image.get_config,
  "video": tokenizer_video.get_config,
}


def run(argv: list[str]) -> None:
  if argv[1:]:
    raise ValueError(f"unknown arguments {argv[1:]}: flags start with --")
  job = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if _DISTRIBUTED.value:
    distributed.join(*job)
  elif job != (None, None, None):
    raise ValueError("--coordinator and the like need --distributed")
  config, workdir, mode = _CONFIG.value, _WORKDIR.value, _MODE.value
  given = {flag for flag in _MODES_OF if flags.FLAGS[flag].present}
  asked = lambda names: {name: flags.FLAGS[name].value for name in names}
  for flag in given:
    if mode not in _MODES_OF[flag]:
      wanted = " or ".join(_MODES_OF[flag])
      raise ValueError(f"--{flag} needs --mode={wanted}, not --mode={mode}")
  for needed, what in (("task", "sample"), ("protocol", "evaluate")):
    if mode == what and given and needed not in given:
      raise ValueError(f"--{min(given)} needs --{needed}: what to {what}")
  for flag, what in _NEEDED.get(mode, {}).items():
    if not flags.FLAGS[flag].present:
      raise ValueError(f"--mode={mode} needs --{flag}={what}")
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax is talkative
  command_line.log_progress_to_stdout()

  if mode == "train":
    return loop.train(config, workdir)
  if mode == "compile":
    return cost_report.write(config, workdir, _TOPOLOGY.value)
  if mode == "import":
    return import_mode.import_weights(
      _SOURCE.value, _INPUT.value, _TOKENIZERS, workdir
    )
  if mode == "tokenize":
    what = (_SPLIT.value, _NUM.value, _TASKS.value)
    return tokenize_mode.tokenize(workdir, _OUTPUT.value, config, *what)
  if mode == "evaluate" and _PROTOCOL.value is not None:
    return evaluate_mode.score_protocol(
      config, workdir, protocol_run.Request(**asked(given))
    )
  stored = workdir_lib.read_config(workdir)
  if config is not None:
    workdir_lib.check_same_experiment(stored, config, workdir)
  config = config or stored
  if mode == "export":
    return export_mode.export(workdir, _OUTPUT.value, _STABLEHLO.value)
  if mode == "reconstruct" and _INPUT.value is not None:
    return reconstruct_mode.reconstruct(workdir, _INPUT.value)
  if mode == "sample" and _TASK.value is not None:
    request = sample_mode.Request(**{"num": 64, **asked(given - {"output"})})
    return sample_mode.sample(config, workdir, request, _OUTPUT.value)
  return evaluate_mode.run_offline(mode, config, workdir)


@distributed.errors_end_the_job()
def main(argv: list[str]) -> None:
  """Errors a user can mend are one line; --verbosity=1 adds the traceback."""
  try:
    run(argv)
  except preemption.Stopped as stopped:
    print(stopped, flush=True)
    sys.exit(preemption.EXIT_CODE)
  except (ValueError, OSError, metrics_lib.NonFiniteError) as error:
    if flags.FLAGS.verbosity >= 1:
      raise
    sys.exit(command_line.one_line(error))
  except KeyboardInterrupt:
    print("interrupted: run the same command again to continue")
    sys.exit(preemption.INTERRUPTED)


if __name__ == "__main__":
  app.run(main, flags_parser=command_line.parse_flags)
