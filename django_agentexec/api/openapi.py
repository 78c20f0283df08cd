"""The OpenAPI description of each operation, for drf-spectacular: Pydantic models as components.

A view's method carries an `Operation` (`@operation(...)`), from which `AgentSchema` reads all that
drf-spectacular would otherwise guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, is_jsonschema_compliant
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from ..tasks.context_input import closed_schema
from .json_schema import for_openapi_30
from .schemas import ConflictSchema, ErrorSchema

Method = TypeVar("Method", bound=Callable[..., Any])
JsonSchema = dict[str, Any]

TAG = "agents"
INVALID: JsonSchema = {
    "type": "object",
    "description": "Messages by field or parameter, nested as the fields are; or a `detail`.",
    "additionalProperties": True,
}
ERRORS: dict[int, tuple[type[BaseModel] | JsonSchema, str]] = {
    400: (INVALID, "Something in the request is impossible."),
    401: (ErrorSchema, "Not signed in."),
    403: (ErrorSchema, "Not permitted."),
    404: (ErrorSchema, "There is none, or none that you may see."),
    406: (ErrorSchema, "Only JSON is spoken here."),
    409: (ConflictSchema, "The state of the activity does not allow it."),
    410: (ErrorSchema, "It was there, and has been pruned."),
    413: (ErrorSchema, "The body is too large."),
    415: (ErrorSchema, "Only JSON is read here."),
    422: (ErrorSchema, "Well-formed, but not possible: a step that has not run, an idempotency key used before."),
    429: (ErrorSchema, "Too many requests."),
    501: (ErrorSchema, "The server does not speak ASGI."),
    503: (ErrorSchema, "The database or the queue's server is unavailable. Retry-After says when to try again."),
}
_ALWAYS = (401, 403, 406, 429, 503)


@dataclass(frozen=True)
class Component:
    """A Pydantic model as a component of the document, under a name of its own."""

    model: type[BaseModel]
    name: str = ""
    mode: JsonSchemaMode = "serialization"


class ComponentExtension(OpenApiSerializerExtension):
    """Makes drf-spectacular understand `Component`."""

    target_class = Component

    def get_name(self, auto_schema: AutoSchema, direction: str) -> str:
        """Return the component's name."""
        return self.target.name or _own_name(self.target.model.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> JsonSchema:
        """Return the model's JSON schema, its parts as further components."""
        # Parts of a project's models are named after the whole: two tasks may each have their own `Item`.
        name = (lambda part: f"{self.target.name}_{part}") if self.target.name else _own_name
        schema = self.target.model.model_json_schema(mode=self.target.mode, ref_template="#/components/schemas/{model}")
        if self.target.mode == "validation":
            schema = closed_schema(schema)
        parts = schema.pop("$defs", {})
        names = {f"#/components/schemas/{part}": f"#/components/schemas/{name(part)}" for part in parts}
        for part, part_schema in parts.items():
            auto_schema.registry.register_on_missing(
                ResolvedComponent(name(part), ResolvedComponent.SCHEMA, _final(part_schema, names), self.target)
            )
        if schema.get("type") == "object" and not schema.get("properties"):
            schema.setdefault("additionalProperties", True)  # or the component would be left out as empty
        return _final(schema, names)


@dataclass(frozen=True)
class Operation:
    """What the document says of one method of a view."""

    name: str
    responses: Mapping[int | tuple[int, str], Any]
    errors: tuple[int, ...] = ()
    parameters: Callable[[], list[OpenApiParameter]] = list
    headers: list[OpenApiParameter] = field(default_factory=list)
    is_public: bool = False


def operation(
    name: str,
    responses: Mapping[int | tuple[int, str], Any],
    *,
    errors: Iterable[int] = (),
    parameters: Callable[[], list[OpenApiParameter]] = list,
    headers: Iterable[OpenApiParameter] = (),
    is_public: bool = False,
) -> Callable[[Method], Method]:
    """Describe a view's method.

    `responses` are Pydantic models (or `list[Model]`, or JSON schemas) by status, `errors` further statuses,
    `parameters` is called when the document is made, `headers` are those of the response.
    """

    def described(method: Method) -> Method:
        method.operation = Operation(name, responses, tuple(errors), parameters, list(headers), is_public)  # type: ignore[attr-defined]  # where `AgentSchema` finds it
        return method

    return described


class AgentSchema(AutoSchema):
    """Reads the `Operation` of a view's method."""

    @property
    def described(self) -> Operation:
        """The present operation."""
        found: Operation = getattr(self.view, self.method.lower()).operation
        return found

    def get_operation_id(self) -> str:
        """Return its name."""
        return self.described.name

    def get_tags(self) -> list[str]:
        """Return the one tag of the API."""
        return [TAG]

    def get_override_parameters(self) -> list[Any]:
        """Return its parameters and the response's headers."""
        return [*self.described.parameters(), *self.described.headers]

    def get_request_serializer(self) -> Any:
        """Return no body."""
        return None

    def get_response_serializers(self) -> Any:
        """Return its answers: what it was made for, and what can go wrong."""
        always = _ALWAYS if not self.described.is_public else (401, 406, 429, 503)
        wrong = sorted({*always, *self.described.errors})
        answers = {status: self._answer(answer) for status, answer in self.described.responses.items()}
        return answers | {status: self._error(*ERRORS[status]) for status in wrong}

    def component(self, component: Component) -> JsonSchema:
        """Return a reference to the component."""
        resolved = self.resolve_serializer(component, "response")  # type: ignore[arg-type]  # by the extension above
        return {**resolved.ref}

    def _error(self, shape: type[BaseModel] | JsonSchema, description: str) -> OpenApiResponse:
        return OpenApiResponse(self._answer(shape), description)

    def _answer(self, answer: Any) -> Any:
        if get_origin(answer) is list:
            return {"type": "array", "items": self.component(Component(get_args(answer)[0]))}
        if isinstance(answer, UnionType):
            return {"anyOf": [self.component(Component(one)) for one in get_args(answer)]}
        return Component(answer) if isinstance(answer, type) and issubclass(answer, BaseModel) else answer


def query_parameters(model: type[BaseModel]) -> list[OpenApiParameter]:
    """Return a model of query parameters as OpenAPI's."""
    properties = model.model_json_schema()["properties"]
    return [query_parameter(name, schema) for name, schema in properties.items()]


def query_parameter(name: str, schema: JsonSchema) -> OpenApiParameter:
    """Return a query parameter. One that may be left out is never null: a URL has no null."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "description", "anyOf")}
    kept |= next((one for one in schema.get("anyOf", []) if one != {"type": "null"}), {})
    if kept.get("default", ...) is None:
        del kept["default"]
    return OpenApiParameter(name, kept, OpenApiParameter.QUERY, description=schema.get("description", ""))


def header(name: str, kind: type, status: int, description: str) -> OpenApiParameter:
    """Return a response's header."""
    return OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[status], description=description)


def _own_name(name: str) -> str:
    """Return the component's name of one of the package's models, apart from a project's."""
    return "Agent" + name.removesuffix("Schema")


def _final(schema: JsonSchema, names: Mapping[str, str]) -> JsonSchema:
    """Return the schema with its parts' final names, in the document's version of OpenAPI."""
    final: JsonSchema = _renamed(schema, names)
    return final if is_jsonschema_compliant() else for_openapi_30(final)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {
                key: names.get(inner, inner) if key == "$ref" and isinstance(inner, str) else _renamed(inner, names)
                for key, inner in value.items()
            }
        case list():
            return [_renamed(inner, names) for inner in value]
    return value
