"""Query parameters: read strictly, so that a misspelled filter is an error and not a longer list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Self, TypeVar, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.functional_validators import AfterValidator
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..conf import conf
from ..models import Priority
from ..parsing import parse_decimal, parse_digits
from ..validation import is_storable

MAX_PAGE_SIZE = 200
MAX_ID = 2**63 - 1
MAX_DELAY = 30 * 86_400  # seconds
METADATA = "metadata."
MAX_METADATA_KEYS = 10  # of one request
MAX_VALUES = 50  # of one parameter

Parameters = TypeVar("Parameters", bound="QueryParameters")


def _at_most_the_setting(seconds: float) -> float:
    if seconds > conf.API_MAX_WAIT:
        raise ValueError(f"{seconds:g} is too long; AGENTEXEC['API_MAX_WAIT'] allows {conf.API_MAX_WAIT:g} seconds.")
    return seconds


def _with_the_settings_maximum(schema: dict[str, Any]) -> None:
    schema["maximum"] = conf.API_MAX_WAIT


class QueryParameters(BaseModel):
    """Parameters of one operation; they are its OpenAPI parameters, too."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_plain_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what Pydantic accepts beyond ASCII digits, such as `1_000`, ` 7` and `+7`."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, str) and kinds & {int, float}:
            digits = value.removeprefix("-")
            if (parse_digits(digits, 10**19) if int in kinds else parse_decimal(value)) is None:
                raise ValueError("Write a number in plain digits, at most 19.")
        return value

    @classmethod
    def read(cls, request: Request, *, besides: Collection[str] = (), metadata: bool = False) -> Self:
        """Return the request's parameters; raise 400 for an unknown, empty, repeated or impossible one.

        `besides` are names that others read, and `metadata` allows `metadata.<key>`.
        """
        values: dict[str, str] = {}
        for name, given in request.query_params.lists():
            if metadata and name.startswith(METADATA):
                continue
            if "" in given:
                raise ValidationError({name: ["This parameter must not be empty."]})
            if name in besides:
                continue
            if name not in cls.model_fields:
                known = sorted({*cls.model_fields, *besides, *([f"{METADATA}<key>"] if metadata else [])})
                raise ValidationError({name: [f"There is no parameter {name!r}, but {', '.join(known) or 'none'}."]})
            if len(given) > 1:
                raise ValidationError({name: [f"Give one value, not {len(given)}."]})
            values[name] = given[0]
        return _validated(cls, values)


class NoParameters(QueryParameters):
    """For operations that take none."""


class Paging(QueryParameters):
    """Which part of a list."""

    page: int = Field(1, ge=1, le=MAX_ID, description="From 1. Pages end with the activities that are counted.")
    page_size: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="Items per page.")


class Waiting(QueryParameters):
    """What a detail shows, and when."""

    wait: Annotated[float, AfterValidator(_at_most_the_setting)] = Field(
        0.0,
        ge=0,
        json_schema_extra=_with_the_settings_maximum,
        description="Seconds to wait for a change: of the status or, with `after`, for a newer log line. "
        "A finished activity is answered at once.",
    )
    after: int | None = Field(None, ge=0, le=MAX_ID, description="Show log lines with a larger id only.")


class EnqueueOptions(QueryParameters):
    """How an activity is to run."""

    priority: str | None = Field(
        None,
        pattern=f"^({'|'.join(priority.name.lower() for priority in Priority)})$",
        description="Above the task's own only for those who may monitor.",
    )
    delay: float = Field(0.0, ge=0, le=MAX_DELAY, description="Seconds until it is due.")


class RetryOptions(QueryParameters):
    """What of an activity is to be done again."""

    from_step: str | None = Field(
        None, min_length=1, max_length=200, description="A pipeline's step; all from it on is repeated."
    )
    from_scratch: bool = Field(False, description="Whether to repeat everything, finished steps and children, too.")


def metadata_of(request: Request) -> dict[str, list[str]]:
    """Return the values of each `metadata.<key>` parameter, by key. Raises 400 for too many, or for one with a NUL."""
    given = {name: values for name, values in request.query_params.lists() if name.startswith(METADATA)}
    if len(given) > MAX_METADATA_KEYS:
        raise ValidationError({METADATA + "<key>": [f"Give {MAX_METADATA_KEYS} keys at most, not {len(given)}."]})
    for name, values in given.items():
        check_number_of_values(name, values)
        if not all(map(is_storable, (name, *values))):
            raise ValidationError({name.replace("\0", "\\0"): ["No metadata holds a NUL character."]})
    return {name.removeprefix(METADATA): values for name, values in given.items()}


def check_number_of_values(name: str, values: Sequence[str]) -> None:
    """Raise 400 for more values of one parameter than a query should be built of."""
    if len(values) > MAX_VALUES:
        raise ValidationError({name: [f"Give {MAX_VALUES} values at most, not {len(values)}."]})


def _validated(parameters: type[Parameters], values: dict[str, str]) -> Parameters:
    try:
        return parameters.model_validate(values)
    except pydantic.ValidationError as error:
        raise ValidationError(
            {
                str(one["loc"][0]): [f"{one['input'][:80]!r}: {one['msg'].removeprefix('Value error, ')}"]
                for one in error.errors()
            }
        ) from None
