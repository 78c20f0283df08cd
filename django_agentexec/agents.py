"""The package's own tasks, found by the registry as those of any installed app."""

from .pipelines import canvas

__all__ = ["canvas"]
