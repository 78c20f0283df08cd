"""Limits of providers, kept by the whole fleet: requests, tokens and concurrent calls of models.

`rules.py` reads the setting, the stores count, and `gate.py` lets calls wait.
"""

from .base import LimitStore, Request, Reservation, Usage, Wait
from .gate import Grant, model_limit
from .headers import note_headers
from .memory import MemoryLimits
from .redis import RedisLimits
from .rules import Bucket, Limit, Limits, limits
from .stores import get_store

__all__ = [
    "Bucket",
    "Grant",
    "Limit",
    "LimitStore",
    "Limits",
    "MemoryLimits",
    "RedisLimits",
    "Request",
    "Reservation",
    "Usage",
    "Wait",
    "get_store",
    "limits",
    "model_limit",
    "note_headers",
]
