"""Bodies of requests: their text, their validation by a Pydantic model, and their schema."""

from __future__ import annotations

from typing import Any, TypeVar

import pydantic
from django.utils.translation import gettext as _
from pydantic import BaseModel
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from ..conf import conf
from .errors import TooLarge, validation_error
from .openapi import AgentSchema, Component

B = TypeVar("B", bound=BaseModel)


class JsonTextParser(BaseParser):
    """A parser that returns the text of the JSON; Pydantic reads it, so strict models accept dates and ids as text."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, bytes]:
        """Return the body as `json`; raise 413 if it exceeds `MAX_CONTEXT_BYTES`."""
        body: bytes = stream.read(conf.MAX_CONTEXT_BYTES + 1)
        if len(body) > conf.MAX_CONTEXT_BYTES:
            text = _("The body has more than %(maximum)s bytes. Store large content elsewhere, and pass a reference.")
            raise TooLarge(text % {"maximum": f"{conf.MAX_CONTEXT_BYTES:,}"})
        return {"json": body}


def read_body(request: Request, kind: type[B]) -> B:
    """Return the body of a request that `JsonTextParser` has read, without one the defaults; raise 400 if invalid."""
    parsed: Any = request.data
    try:
        return kind.model_validate_json(parsed.get("json", b"{}") or b"{}")
    except pydantic.ValidationError as error:
        raise validation_error(error) from error


class BodySchema(AgentSchema):
    """The schema of a view whose POST has a body: the model `body` of the view."""

    def get_request_serializer(self) -> Any:
        """Return the body of a POST, a component with the name of the model."""
        if self.method != "POST":
            return None
        body: type[BaseModel] = getattr(self.view, "body")  # noqa: B009  # of the views with this schema
        return Component(body, f"Agent{body.__name__.removesuffix('Body')}", "validation")
