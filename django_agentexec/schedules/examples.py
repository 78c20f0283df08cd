"""What a context may look like: an example made from its type's JSON schema. Shown by the form beside the editor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ..tasks import TaskDefinition

DEEPEST = 5  # levels; a type may contain itself
BLANKS: Mapping[str, Any] = {
    "string": "", "integer": 0, "number": 0.0, "boolean": False, "array": [], "object": {}, "null": None,
}  # fmt: skip

Schema = dict[str, Any]


def schema_of(definition: TaskDefinition[..., Any]) -> Schema:
    """Return the JSON schema of a task's context, by the names that are stored."""
    context_type: type[BaseModel] = definition.context_type
    return context_type.model_json_schema(by_alias=False)


def example_of(schema: Schema) -> Any:
    """Return a value of the schema's form: defaults and examples where it has some, else something blank."""
    return _example(schema, schema.get("$defs", {}), DEEPEST)


def _example(schema: Schema, definitions: Schema, depth: int) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema and depth:
        return _example(definitions.get(schema["$ref"].rsplit("/", 1)[-1], {}), definitions, depth - 1)
    for kind in ("anyOf", "oneOf", "allOf"):
        if schema.get(kind):
            return _example(schema[kind][0], definitions, depth)
    if "properties" in schema and depth:
        return {name: _example(one, definitions, depth - 1) for name, one in schema["properties"].items()}
    return BLANKS.get(schema.get("type", "null"))
