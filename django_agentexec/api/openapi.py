"""OpenAPI descriptions of the views for drf-spectacular, with Pydantic models as components.

The decorator `@operation(...)` attaches a description to a view's method; `AgentSchema` reads it.
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
FIELD_ERRORS: JsonSchema = {
    "type": "object",
    "description": "Messages by field or parameter, nested like the fields; or a `detail`.",
    "additionalProperties": True,
}
ERRORS: dict[int, tuple[type[BaseModel] | JsonSchema, str]] = {
    400: (FIELD_ERRORS, "A parameter, a header or the body is invalid."),
    401: (ErrorSchema, "Authentication is missing or invalid."),
    403: (ErrorSchema, "Permission is missing."),
    404: (ErrorSchema, "Not found, or not visible to you."),
    406: (ErrorSchema, "Responses are JSON only."),
    409: (ConflictSchema, "The status of the activity does not allow it."),
    410: (ErrorSchema, "The activity has been pruned."),
    413: (ErrorSchema, "The body is too large."),
    415: (ErrorSchema, "The body must be JSON."),
    422: (
        ErrorSchema,
        "Well-formed, but impossible: a step that has not run, an idempotency key in use.",
    ),
    429: (ErrorSchema, "Too many requests."),
    501: (ErrorSchema, "The view needs an ASGI server."),
    503: (ErrorSchema, "The database or the queue's server is unavailable. Retry-After contains the seconds to wait."),
}
_COMMON_ERRORS = (401, 403, 406, 429, 503)


@dataclass(frozen=True)
class Component:
    """A Pydantic model as a component of the document; `name` defaults to the name of the model."""

    model: type[BaseModel]
    name: str = ""
    mode: JsonSchemaMode = "serialization"


class ComponentExtension(OpenApiSerializerExtension):
    """The support for `Component` in drf-spectacular."""

    target_class = Component

    def get_name(self, auto_schema: AutoSchema, direction: str) -> str:
        """Return the component's name."""
        return self.target.name or _component_name(self.target.model.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> JsonSchema:
        """Return the JSON schema of the model, and register its parts as further components."""
        # The name of the whole is a prefix of its parts, since two tasks may have different models `Item`.
        name = (lambda part: f"{self.target.name}_{part}") if self.target.name else _component_name
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
            schema.setdefault("additionalProperties", True)  # an empty component would be left out
        return _final(schema, names)


@dataclass(frozen=True)
class OperationDescription:
    """The description of one method of a view."""

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

    `responses` are Pydantic models (or `list[Model]`, or JSON schemas) by status code, `errors` further status
    codes, `headers` the headers of the response. `parameters` is called when the document is generated.
    """

    def described(method: Method) -> Method:
        method.operation = OperationDescription(  # type: ignore[attr-defined]  # `AgentSchema` reads it
            name, responses, tuple(errors), parameters, list(headers), is_public
        )
        return method

    return described


class AgentSchema(AutoSchema):
    """The schema of a view, from the descriptions of its methods."""

    @property
    def described(self) -> OperationDescription:
        """The description of the present method."""
        found: OperationDescription = getattr(self.view, self.method.lower()).operation
        return found

    def get_operation_id(self) -> str:
        """Return the name of the operation."""
        return self.described.name

    def get_tags(self) -> list[str]:
        """Return the tag of the API."""
        return [TAG]

    def get_override_parameters(self) -> list[Any]:
        """Return the parameters, and the headers of the response."""
        return [*self.described.parameters(), *self.described.headers]

    def get_request_serializer(self) -> Any:
        """Return None: there is no body."""
        return None

    def get_response_serializers(self) -> Any:
        """Return the responses by status code, errors included."""
        common = [code for code in _COMMON_ERRORS if code != 403 or not self.described.is_public]
        errors = sorted({*common, *self.described.errors})
        responses = {code: self._response(response) for code, response in self.described.responses.items()}
        return responses | {code: self._error(*ERRORS[code]) for code in errors}

    def component(self, component: Component) -> JsonSchema:
        """Return a reference to the component."""
        resolved = self.resolve_serializer(component, "response")  # type: ignore[arg-type]  # by the extension above
        return {**resolved.ref}

    def _error(self, shape: type[BaseModel] | JsonSchema, description: str) -> OpenApiResponse:
        return OpenApiResponse(self._response(shape), description)

    def _response(self, response: Any) -> Any:
        if get_origin(response) is list:
            return {"type": "array", "items": self.component(Component(get_args(response)[0]))}
        if isinstance(response, UnionType):
            return {"anyOf": [self.component(Component(model)) for model in get_args(response)]}
        return Component(response) if isinstance(response, type) and issubclass(response, BaseModel) else response


def query_parameters(model: type[BaseModel]) -> list[OpenApiParameter]:
    """Return the fields of a model as query parameters for OpenAPI."""
    properties = model.model_json_schema()["properties"]
    return [query_parameter(name, schema) for name, schema in properties.items()]


def query_parameter(name: str, schema: JsonSchema) -> OpenApiParameter:
    """Return a query parameter. An optional parameter is left out of the URL, and is never null."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "description", "anyOf")}
    kept |= next((option for option in schema.get("anyOf", []) if option != {"type": "null"}), {})
    if kept.get("default", ...) is None:
        del kept["default"]
    if kept.get("type") == "string" and not kept.keys() & {"enum", "format"}:
        kept.setdefault("minLength", 1)  # an empty parameter is a 400
    return OpenApiParameter(name, kept, OpenApiParameter.QUERY, description=schema.get("description", ""))


def header(name: str, kind: type, status: int, description: str) -> OpenApiParameter:
    """Return a header of the response with this status code."""
    return OpenApiParameter(name, kind, OpenApiParameter.HEADER, response=[status], description=description)


def _component_name(name: str) -> str:
    """Return the component name of a model of the package; its prefix avoids clashes with a project's components."""
    return "Agent" + name.removesuffix("Schema")


def _final(schema: JsonSchema, names: Mapping[str, str]) -> JsonSchema:
    """Return the schema with the component names of its parts, in the OpenAPI version of the document."""
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
