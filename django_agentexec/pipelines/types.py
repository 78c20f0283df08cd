"""Checks of a pipeline's types: between its steps, and of its declared context and result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar, get_args, get_origin

from ..exceptions import TaskDefinitionError
from ..serialization.flow import fits, is_model, tuple_parts, type_name
from .steps import Step


def check_flow(owner: str, steps: Sequence[Step]) -> None:
    """Raise `TaskDefinitionError` if the result of a step does not fit the next step."""
    if not steps:
        raise TaskDefinitionError(
            f"Pipeline {owner} has no step. Mark its methods with @step(0, ...), or pass abstract=True."
        )
    first, last = steps[0], steps[-1]
    if len(first.parameters) != 1 or not is_model(first.parameters[0]):
        names = ", ".join(map(type_name, first.parameters)) or "nothing"
        raise TaskDefinitionError(
            f"Pipeline {owner}: its first step {first.name!r} takes {names}, but must take the context: "
            "one Pydantic model."
        )
    for step, following in pairwise(steps):
        _check_pair(owner, step, following)
    if not is_model(last.result):
        raise TaskDefinitionError(
            f"Pipeline {owner}: its last step {last.name!r} returns {last.result_type}, but must return "
            "one Pydantic model."
        )


def check_declared(cls: type[Any], generic: type[Any]) -> None:
    """Raise `TaskDefinitionError` if the steps have other types than those of the base `generic[context, result]`."""
    for base in vars(cls).get("__orig_bases__", ()):
        if get_origin(base) is not generic:
            continue
        context, result = get_args(base)
        first, last = cls.steps[0], cls.steps[-1]
        for declared, actual, subject in (
            (context, first.parameters[0], f"its first step {first.name!r} takes"),
            (result, last.result, f"its last step {last.name!r} returns"),
        ):
            if not isinstance(declared, TypeVar) and declared != actual:
                raise TaskDefinitionError(
                    f"Pipeline {cls.__qualname__} is declared with {type_name(declared)}, but {subject} "
                    f"{type_name(actual)}."
                )


def _check_pair(owner: str, step: Step, following: Step) -> None:
    parts = tuple_parts(step.result)
    produced = parts if parts is not None else () if step.result is type(None) else (step.result,)
    wanted = following.parameters
    if len(produced) == len(wanted) and all(fits(*pair) for pair in zip(produced, wanted, strict=True)):
        return
    raise TaskDefinitionError(
        f"Pipeline {owner}: step {step.name!r} returns {type_name(step.result)}, but the next step, "
        f"{following.name!r}, takes ({', '.join(map(type_name, wanted))})."
    )
