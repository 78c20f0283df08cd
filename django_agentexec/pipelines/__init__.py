"""Pipelines: steps with typed flow, each finished one kept, resumed after the last of them."""

from .diagram import mermaid
from .pipeline import Pipeline
from .steps import step

__all__ = ["Pipeline", "mermaid", "step"]
