"""Fields in JSON that no model knows: misspelt ones, or those of another form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel
from pydantic.fields import FieldInfo


def unknown_fields(loaded: Any, content: Any) -> Iterator[str]:
    """Return the paths of fields in JSON that the models loaded from it have ignored."""
    if isinstance(loaded, RootModel):
        yield from unknown_fields(loaded.root, content)
    elif isinstance(loaded, BaseModel) and isinstance(content, dict):
        yield from _unknown_of_model(loaded, content)
    elif isinstance(loaded, Mapping) and isinstance(content, dict):
        by_name = {str(key): value for key, value in loaded.items()}
        for key, item in content.items():
            yield from _below(f"[{key!r:.60}]", by_name.get(key), item)
    elif isinstance(loaded, list | tuple) and isinstance(content, list):
        for number, (value, item) in enumerate(zip(loaded, content, strict=False)):
            yield from _below(f"[{number}]", value, item)


def _unknown_of_model(loaded: BaseModel, content: dict[str, Any]) -> Iterator[str]:
    kind = type(loaded)
    names = {alias: name for name, field in kind.model_fields.items() for alias in _names(name, field)}
    rewritten = any(one.info.mode != "after" for one in kind.__pydantic_decorators__.model_validators.values())
    takes_all = kind.model_config.get("extra") == "allow" or rewritten
    for key, item in content.items():
        if key in names:
            yield from _below(key, getattr(loaded, names[key], None), item)
        elif not takes_all and key not in kind.model_computed_fields:
            yield key


def _names(name: str, field: FieldInfo) -> Iterator[str]:
    yield name
    alias = field.validation_alias or field.alias
    for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
        first = choice.path[0] if isinstance(choice, AliasPath) else choice
        if isinstance(first, str):
            yield first


def _below(parent: str, loaded: Any, content: Any) -> Iterator[str]:
    for path in unknown_fields(loaded, content):
        yield f"{parent}{path}" if path.startswith("[") else f"{parent}.{path}"
