"""A stand-in for a language model, so that the example runs without a network and without a key.

It is honest work: at every turn it looks at the conversation so far, decides what to do next, calls the
tools it was given, and derives its answer from what the tools returned, by rules instead of a network.
"""

from .model import OfflineModel

__all__ = ["OfflineModel"]
