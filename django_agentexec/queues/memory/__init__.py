"""The in-memory backend of the queue: one process, for tests."""

from .queue import MemoryQueue

__all__ = ["MemoryQueue"]
