"""Contexts of tasks that tests register."""

from __future__ import annotations

from pydantic import BaseModel


class Empty(BaseModel):
    """A context without fields."""
