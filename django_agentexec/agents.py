"""Tasks of the package: the registry imports this module like the `agents` modules of other installed apps."""

from .children import canvas

__all__ = ["canvas"]
