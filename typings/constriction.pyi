"""Stands for constriction, an extension without types, in the type checker."""

from typing import Any

stream: Any
