"""Conversion of Pydantic's JSON schemas (2020-12) into the dialect of OpenAPI 3.0."""

from __future__ import annotations

from typing import Any

JsonSchema = dict[str, Any]

_NULL = {"type": "null"}
# Keywords that 3.0 lacks. A schema without them accepts more, but never less.
_UNSUPPORTED = {
    *("$schema", "$id", "$anchor", "$comment", "$defs", "if", "then", "else", "contains", "minContains", "maxContains"),
    *("contentMediaType", "contentEncoding", "contentSchema", "patternProperties", "propertyNames", "prefixItems"),
    *("dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
}


def for_openapi_30(schema: Any) -> Any:
    """Return a JSON schema in the dialect of OpenAPI 3.0."""
    if isinstance(schema, list):
        return [for_openapi_30(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema and len(schema) > 1:  # keywords beside a reference are ignored
        schema = {"allOf": [{"$ref": schema["$ref"]}], **{key: schema[key] for key in schema if key != "$ref"}}
    converted: JsonSchema = {}
    for keyword, value in schema.items():
        converted |= _keyword(keyword, value)
    if "prefixItems" in schema or converted.get("type") == "array":
        converted.setdefault("items", {})
    return converted


def _keyword(keyword: str, value: Any) -> JsonSchema:
    match keyword:
        case "properties":
            return {keyword: {name: for_openapi_30(inner) for name, inner in value.items()}}
        case "anyOf" | "oneOf" if _NULL in value:
            others = [for_openapi_30(option) for option in value if option != _NULL]
            return {keyword: others, "nullable": True} if len(others) != 1 else _nullable(others[0])
        case "type" if value == "null":
            return {"nullable": True, "enum": [None]}
        case "type" if isinstance(value, list):
            kinds = [kind for kind in value if kind != "null"]
            nullable: JsonSchema = {"nullable": True} if "null" in value else {}
            return nullable | ({"type": kinds[0]} if len(kinds) == 1 else {"anyOf": [{"type": kind} for kind in kinds]})
        case "const":
            return {"enum": [value]}
        case "examples" if isinstance(value, list):
            return {"example": value[0]} if value else {}
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {keyword.removeprefix("exclusive").lower(): value, keyword: True}
        case "default" | "enum" | "example" | "required" | "discriminator":
            return {keyword: value}
    return {} if keyword in _UNSUPPORTED else {keyword: for_openapi_30(value)}


def _nullable(schema: JsonSchema) -> JsonSchema:
    return {"allOf": [schema], "nullable": True} if "$ref" in schema else {**schema, "nullable": True}
