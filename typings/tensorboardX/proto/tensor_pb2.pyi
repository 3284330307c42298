"""Stands for a module whose classes protobuf makes as it is imported."""

from typing import Any

TensorProto = Any
