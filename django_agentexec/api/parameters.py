"""Query parameters, validated strictly: a misspelled filter is an error instead of an unfiltered list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Self, TypeVar, get_args

import pydantic
from django.utils.translation import gettext as _
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.functional_validators import AfterValidator
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..conf import conf
from ..models import Priority
from ..parsing import parse_decimal, parse_digits
from ..tasks.context_input import field_problems
from ..validation import is_storable
from .errors import invalid_parameter

MAX_PAGE_SIZE = 200
MAX_ID = 2**63 - 1
MAX_DELAY = 30 * 86_400  # seconds
METADATA = "metadata."
MAX_METADATA_KEYS = 10  # of one request
MAX_VALUES = 50  # of one parameter
PRIORITIES = {text: priority for priority in Priority for text in (priority.name.lower(), str(priority.value))}

Parameters = TypeVar("Parameters", bound="QueryParameters")


def _validate_wait(seconds: float) -> float:
    if seconds > conf.API_MAX_WAIT:
        text = _("%(seconds)s is too long; AGENTEXEC['API_MAX_WAIT'] allows %(maximum)s seconds.")
        raise ValueError(text % {"seconds": f"{seconds:g}", "maximum": f"{conf.API_MAX_WAIT:g}"})
    return seconds


def _add_max_wait(schema: dict[str, Any]) -> None:
    schema["maximum"] = conf.API_MAX_WAIT


class QueryParameters(BaseModel):
    """The query parameters of one view, which are also its parameters in the OpenAPI document."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _validate_text(cls, value: Any) -> Any:
        """Reject text that no database can hold, and with which no query can be made."""
        if isinstance(value, str) and not is_storable(value):
            raise ValueError(_("Null characters are not allowed."))
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _validate_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject numbers that Pydantic accepts beyond ASCII digits, such as `1_000`, ` 7` and `+7`."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = {annotation, *get_args(annotation)}
        if isinstance(value, str) and kinds & {int, float}:
            digits = value.removeprefix("-")
            if (parse_digits(digits, 10**19) if int in kinds else parse_decimal(value)) is None:
                raise ValueError(_("Give a number of at most 19 plain digits."))
        return value

    @classmethod
    def read(cls, request: Request, *, other_names: Collection[str] = (), allow_metadata: bool = False) -> Self:
        """Return the request's parameters; raise 400 for an unknown, empty, repeated or impossible parameter.

        `other_names` are parameters that other code reads; `allow_metadata` permits `metadata.<key>`.
        """
        values: dict[str, str] = {}
        for name, given in request.query_params.lists():
            if allow_metadata and name.startswith(METADATA):
                continue
            if "" in given:
                raise invalid_parameter(name, _("This parameter must not be empty."))
            if name in other_names:
                continue
            if name not in cls.model_fields:
                known = sorted({*cls.model_fields, *other_names, *([f"{METADATA}<key>"] if allow_metadata else [])})
                raise invalid_parameter(name, _unknown_parameter(name, known))
            if len(given) > 1:
                raise invalid_parameter(name, _("Give one value, not %(count)s.") % {"count": len(given)})
            values[name] = given[0]
        return _validated(cls, values)


class NoParameters(QueryParameters):
    """No query parameters."""


class Paging(QueryParameters):
    """The page of a list."""

    page: int = Field(1, ge=1, le=MAX_ID, description="Page number, from 1, within the activities that are counted.")
    page_size: int = Field(50, ge=1, le=MAX_PAGE_SIZE, description="Items per page.")


class Waiting(QueryParameters):
    """The log lines of a detail, and the time to wait for a change."""

    wait: Annotated[float, AfterValidator(_validate_wait)] = Field(
        0.0,
        ge=0,
        json_schema_extra=_add_max_wait,
        description="Seconds to wait for a change of the status or, with `after`, for a newer log line. "
        "The response for a finished activity is immediate.",
    )
    after: int | None = Field(None, ge=0, le=MAX_ID, description="Return only log lines with a larger id.")


class EnqueueOptions(QueryParameters):
    """The options of an enqueue."""

    priority: str | None = Field(
        None,
        pattern=f"^({'|'.join(PRIORITIES)})$",
        description="By name or number. A priority above the task's requires the monitor permission.",
    )
    delay: float = Field(0.0, ge=0, le=MAX_DELAY, description="Seconds until it is due.")
    conversation: str | None = Field(
        None,
        max_length=255,
        description="The session id of a visible conversation, or of a new conversation: the activity is a turn of it.",
    )


class RetryOptions(QueryParameters):
    """The options of a retry."""

    from_step: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="A step of a pipeline: it and all later steps run again.",
    )
    from_scratch: bool = Field(False, description="Whether finished steps and children run again, too.")


def metadata_of(request: Request) -> dict[str, list[str]]:
    """Return the values of the `metadata.<key>` parameters, by key. Raises 400 for too many, or for a NUL character."""
    given = {name: values for name, values in request.query_params.lists() if name.startswith(METADATA)}
    if len(given) > MAX_METADATA_KEYS:
        text = _("Give at most %(maximum)s keys, not %(count)s.")
        raise invalid_parameter(f"{METADATA}<key>", text % {"maximum": MAX_METADATA_KEYS, "count": len(given)})
    for name, values in given.items():
        check_number_of_values(name, values)
        if not all(map(is_storable, (name, *values))):
            raise invalid_parameter(name.replace("\0", "\\0"), _("Metadata cannot contain a NUL character."))
    return {name.removeprefix(METADATA): values for name, values in given.items()}


def check_number_of_values(name: str, values: Sequence[str]) -> None:
    """Raise 400 for more than `MAX_VALUES` values of one parameter."""
    if len(values) > MAX_VALUES:
        text = _("Give at most %(maximum)s values, not %(count)s.")
        raise invalid_parameter(name, text % {"maximum": MAX_VALUES, "count": len(values)})


def _unknown_parameter(name: str, known: Sequence[str]) -> str:
    if not known:
        return _("Unknown parameter %(name)r; this path has no parameters.") % {"name": name}
    return _("Unknown parameter %(name)r; known are: %(known)s.") % {"name": name, "known": ", ".join(known)}


def _validated(parameters: type[Parameters], values: dict[str, str]) -> Parameters:
    try:
        return parameters.model_validate(values)
    except pydantic.ValidationError as error:
        messages = {
            str(problem.location[0]): [f"{problem.input[:80]!r}: {problem.message}"]
            for problem in field_problems(error)
        }
        raise ValidationError(messages) from None
