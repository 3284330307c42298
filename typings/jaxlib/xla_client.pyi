"""Stands for a module of jaxlib that is made of an extension without types.

`jax.Device` is the class of this one.
"""

from typing import Any

class Device:
  id: int
  process_index: int
  platform: str
  device_kind: str
  def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
