"""The Redis and Valkey backend of the queue."""

from .queue import RedisQueue

__all__ = ["RedisQueue"]
