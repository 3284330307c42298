"""Readers with a fault each, to see that the search finds it."""

import os
import pathlib
import time

import numpy as np


def make(folder: pathlib.Path) -> None:
  (folder / "seed.txt").write_text("seed " * 20)


def _is_seed(folder: pathlib.Path) -> bool:
  return (folder / "seed.txt").read_text(errors="replace") == "seed " * 20


def _raise(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    raise KeyError("shape")


def _allocate(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    np.ones(1_200 * 2**20, np.uint8)
    raise ValueError(f"{folder} is damaged")


def _ask_for_much(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    try:
      np.zeros(2**40, np.uint8)
    except MemoryError as error:
      raise ValueError(f"cannot read {folder}") from error


def _hang(folder: pathlib.Path) -> None:
  while not _is_seed(folder):
    time.sleep(1)


def _write(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    (folder.parents[2] / "victim").write_text("overwritten")


def _create(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    os.makedirs(folder.parents[2] / "new", exist_ok=True)


def _die(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    os.abort()


def _keep_the_name(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    raise ValueError("it is damaged")


def _speak_long(folder: pathlib.Path) -> None:
  if not _is_seed(folder):
    raise ValueError(f"{folder} is damaged\nin two lines")


READS = {
  "raises": _raise,
  "allocates": _allocate,
  "asks for much": _ask_for_much,
  "hangs": _hang,
  "writes": _write,
  "creates": _create,
  "dies": _die,
  "keeps the name": _keep_the_name,
  "speaks long": _speak_long,
}
