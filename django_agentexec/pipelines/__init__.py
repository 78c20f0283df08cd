"""Pipelines: steps with typed flow, each finished one kept, resumed after the last of them."""

from .canvas import achain, achord, agroup, chain, chord, group
from .diagram import mermaid
from .pipeline import Pipeline
from .steps import step

__all__ = ["Pipeline", "achain", "achord", "agroup", "chain", "chord", "group", "mermaid", "step"]
