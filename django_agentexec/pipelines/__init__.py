"""Pipelines: tasks made of typed steps, with a checkpoint after each step."""

from ..children.canvas import achain, achord, agroup, chain, chord, group
from .diagram import amermaid, mermaid
from .pipeline import Pipeline
from .steps import step

__all__ = ["Pipeline", "achain", "achord", "agroup", "amermaid", "chain", "chord", "group", "mermaid", "step"]
