"""The modes by name, as --mode takes them, and the flags of each.

Flags are read before what a mode needs is imported, which takes seconds: this
file imports nothing heavy, and `tests/startup_test.py` holds what it may.
`Mode.load` imports the file of a mode.
"""

from collections.abc import Callable
import dataclasses
import importlib
from typing import ClassVar

from configs import fields
from magvit import command_line
from storage import compile_cache
from storage import interrupts

# Projects whose weights --mode=import reads; export: this one.
SOURCES = ("open_magvit2", "praxis", "export")
_QPS = (22, 26, 30, 34, 38, 42)


@dataclasses.dataclass(frozen=True)
class Train:
  """Trains a new model, or resumes an interrupted run.

  Everything about an experiment is in its config, and nothing in its flags.
  """

  NEEDS_CONFIG: ClassVar = True

  tracker: str | None = command_line.option(
    "Function FILE.py:FUNCTION that gets the metrics, too, for wandb and the"
    " like",
    is_path=True,
  )


@dataclasses.dataclass(frozen=True)
class Status:
  """Says where a run stands, or each run in a folder of them."""

  READS_CONFIG: ClassVar = False
  COMPUTES: ClassVar = False


@dataclasses.dataclass(frozen=True)
class Evaluate:
  """Scores a model by the usual metrics, or by a protocol."""

  SUBJECT: ClassVar = "protocol"

  protocol: str | None = command_line.option(
    "Protocol of a published table, by its name in docs/evaluate.md; the usual"
    " metrics if it is left out"
  )
  input: str | None = command_line.option(
    "Samples for the protocol to measure, an .npz or a folder; the model makes"
    " them if it is left out",
    is_path=True,
  )
  reference: str | None = command_line.option(
    "Real clips, or their statistics, to compare with, an .npz or a folder; the"
    " config's data set if it is left out",
    is_path=True,
  )
  weights: str | None = command_line.option(
    "File of the weights of the protocol's feature network, written by"
    " models.weights.convert",
    is_path=True,
  )
  num: int | None = command_line.option(
    "Number of clips in each fold; the protocol's number if it is left out",
    allowed=fields.COUNT,
  )
  folds: int | None = command_line.option(
    "Number of independent measurements, whose mean is reported; the protocol's"
    " number if it is left out",
    allowed=fields.COUNT,
  )
  seed: int = command_line.option(
    "Seed of the samples and of the order of clips", 0, allowed=fields.SEED
  )
  data: str | None = command_line.option(
    "Folder to read in place of the config's data set, in the same form; all of"
    " its held-out clips are measured",
    is_path=True,
  )


@dataclasses.dataclass(frozen=True)
class Sample:
  """Generates samples of one task, or pictures of all tasks."""

  SUBJECT: ClassVar = "task"

  task: str | None = command_line.option(
    "Task to sample, by its name in docs/tasks_and_sampling.md; pictures of all"
    " tasks in WORKDIR/samples if it is left out"
  )
  num: int = command_line.option(
    "Number of samples; 64 if it is left out", 64, allowed=fields.COUNT
  )
  label: str | None = command_line.option(
    "Class of all samples, by number or name; every class in turn if it is left"
    " out"
  )
  input: str | None = command_line.option(
    "Image, video or folder of them to complete; held-out clips of the data set"
    " if it is left out",
    is_path=True,
  )
  output: str | None = command_line.option(
    "Folder to write; WORKDIR/samples/TASK_seedSEED if it is left out",
    is_path=True,
  )
  seed: int = command_line.option("Seed of the samples", 0, allowed=fields.SEED)
  steps: int | None = command_line.option(
    "Number of sampling steps; the config's if it is left out",
    allowed=fields.COUNT,
  )
  guidance: float | None = command_line.option(
    "Strength of guidance, 0 for none; the config's if it is left out",
    allowed=fields.GUIDANCE,
  )


@dataclasses.dataclass(frozen=True)
class Reconstruct:
  """Codes and decodes images and videos with a tokenizer."""

  input: str | None = command_line.option(
    "Image, video or folder of them; held-out clips of the data set if it is"
    " left out",
    is_path=True,
  )


@dataclasses.dataclass(frozen=True)
class Tokenize:
  """Stores a data set as tokens, for training generators."""

  output: str = command_line.option(
    "Folder to write, new or with the same tokens in part",
    needed="FOLDER",
    is_path=True,
  )
  num: int | None = command_line.option(
    "Number of clips, from the first; all if it is left out",
    allowed=fields.COUNT,
  )
  split: str = command_line.option(
    "Split of the data set", "train", choices=("train", "held_out")
  )
  tasks: tuple[str, ...] | None = command_line.option(
    "Tasks whose condition tokens are stored, too, separated by commas; all"
    " that need them if it is left out"
  )


@dataclasses.dataclass(frozen=True)
class Export:
  """Writes a trained model as files that need no code of ours."""

  output: str = command_line.option(
    "Folder to write, which must be new or empty",
    needed="FOLDER",
    is_path=True,
  )
  stablehlo: bool = command_line.option(
    "Whether to write the model's computations, too, as StableHLO", False
  )


@dataclasses.dataclass(frozen=True)
class Import:
  """Puts public weights into a workdir that other modes read."""

  READS_CONFIG: ClassVar = False

  source: str | None = command_line.option(
    "Project that the weights come from; export: this one", choices=SOURCES
  )
  input: str | None = command_line.option(
    "File of weights, .ckpt, .pth, .safetensors or .npz; of an export its"
    " folder",
    is_path=True,
  )


@dataclasses.dataclass(frozen=True)
class Compile:
  """Reports what a config costs on TPUs, which need not exist."""

  NEEDS_CONFIG: ClassVar = True

  topology: str = command_line.option(
    "TPUs to compile for, by libtpu's name for them, like v5e:16x16;"
    " 2xv5e:16x16 is two slices",
    needed="NAME, like v5e:16x16",
  )
  programs: tuple[str, ...] | None = command_line.option(
    "Programs to compile, separated by commas: train, and reconstruct of a"
    " tokenizer, sample of a generator or classify of a recognizer; all if it"
    " is left out"
  )
  fit: bool = command_line.option(
    "Whether to choose mesh, microbatches and remat: it compiles the step of"
    " training in up to five ways, and prints the flags of the fastest that"
    " fits",
    False,
  )


@dataclasses.dataclass(frozen=True)
class Compress:
  """Codes videos as files of tokens, against video codecs."""

  READS_CONFIG: ClassVar = False
  NEEDS_WORKDIR: ClassVar = False

  input: str = command_line.option(
    "Folder of the videos to code", needed="FOLDER", is_path=True
  )
  output: str = command_line.option(
    "Folder of the results, new or of the same study",
    needed="FOLDER",
    is_path=True,
  )
  workdirs: tuple[str, ...] = command_line.option(
    "Workdirs of tokenizers or generators, separated by commas; each is a point"
    " of a curve",
    (),
    is_path=True,
  )
  size: str = command_line.option(
    "Size that videos are cut and resized to, WIDTHxHEIGHT in pixels", "640x360"
  )
  frames: int | None = command_line.option(
    "Number of frames of each video, from the first; all if it is left out",
    allowed=fields.COUNT,
  )
  x265_preset: str = command_line.option("Preset of the encoder x265", "slow")
  x265_qps: tuple[int, ...] = command_line.option(
    "Quantization parameters of x265, separated by commas",
    _QPS,
    allowed=fields.whole(0, 51),
  )
  vvenc_preset: str = command_line.option("Preset of the encoder vvenc", "fast")
  vvenc_qps: tuple[int, ...] = command_line.option(
    "Quantization parameters of vvenc, separated by commas",
    _QPS,
    allowed=fields.whole(0, 63),
  )
  at_bpp: float = command_line.option(
    "Bits per pixel at which the curves are compared; the paper's is 0.0384",
    0.0384,
    allowed=fields.Range(0, low_open=True),
  )
  lpips: str | None = command_line.option(
    "File of LPIPS's weights, written by models.weights.convert; no LPIPS if it"
    " is left out",
    is_path=True,
  )


@dataclasses.dataclass(frozen=True)
class Decompress:
  """Turns a file of coded tokens back into a video."""

  READS_CONFIG: ClassVar = False

  input: str = command_line.option(
    "File of coded tokens", needed="FILE.mvt", is_path=True
  )
  output: str = command_line.option(
    "Video to write", needed="FILE.mp4", is_path=True
  )


@dataclasses.dataclass(frozen=True)
class Mode:
  """A command: its flags, and the file in magvit/modes that carries it out."""

  Options: type  # a frozen dataclass
  file: str

  def load(self) -> Callable[..., None]:
    """Imports the file, for seconds; returns its run(options, config, workdir).

    `config` and `workdir` are None if they are not given.
    """
    compile_cache.keep()
    with interrupts.at_once():
      return importlib.import_module(f"magvit.modes.{self.file}").run


MODES = {
  "train": Mode(Train, "train"),
  "status": Mode(Status, "status"),
  "evaluate": Mode(Evaluate, "evaluate"),
  "sample": Mode(Sample, "sample"),
  "reconstruct": Mode(Reconstruct, "reconstruct"),
  "tokenize": Mode(Tokenize, "tokenize"),
  "export": Mode(Export, "export"),
  "import": Mode(Import, "import_weights"),
  "compile": Mode(Compile, "compile"),
  "compress": Mode(Compress, "compress"),
  "decompress": Mode(Decompress, "decompress"),
}
