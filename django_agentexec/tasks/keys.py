"""The lock key, fair key and limits of a task, with templates such as `user:{user_id}`.

They are checked at registration, and evaluated for each activity.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..concurrency.keys import limit_of, own_key, task_key
from ..exceptions import InvalidContext, TaskDefinitionError
from ..queues import Limit
from ..queues.limits import joined, shared_partition
from ..rates import parse_rate
from ..translation import gettext as _
from ..validation import MAX_COUNT, is_storable

if TYPE_CHECKING:
    from .options import TaskOptions

MAX_KEY = 500  # characters; the size of the column of lock keys
METADATA = "metadata"  # what a template calls it, unless the context has a field of this name
_PRIVATE = re.compile(r"(^|\.)_")


class Keys:
    """The validated options of a task for its keys and limits. Raises `TaskDefinitionError`."""

    def __init__(self, name: str, options: TaskOptions, context_type: type[BaseModel]) -> None:
        self._name = name
        self.lock_key = _checked_template(name, "lock_key", options.get("lock_key"), context_type)
        """The template of the lock key; empty if there is none."""
        self._fair_key = _checked_template(name, "fair_key", options.get("fair_key"), context_type)
        self._concurrency_key = _checked_template(name, "concurrency_key", options.get("concurrency_key"), context_type)
        self._max_concurrency = _checked_count(name, "max_concurrency", options.get("max_concurrency"))
        self._concurrency = _checked_count(name, "concurrency", options.get("concurrency"))
        self._rate = _checked_rate(name, options.get("rate_limit"))
        if self._fair_key and self.lock_key:
            raise TaskDefinitionError(
                f"Task {name!r} has both a fair_key and a lock_key. Lock keys take turns anyway: remove the fair_key."
            )
        if self._max_concurrency is not None and not self._concurrency_key:
            raise TaskDefinitionError(
                f"Task {name!r}: max_concurrency={self._max_concurrency} needs a concurrency_key such as "
                "'org:{metadata.organization_id}'; for a limit of the whole task use concurrency."
            )
        self.are_fair = bool(self._fair_key or self._concurrency_key or self._rate or self._concurrency is not None)
        """Whether activities take turns by a fair key, or have limits."""

    def evaluate(self, context: BaseModel, metadata: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return what the row of an activity stores: its lock key, or "", and its fair key and limits, or None.

        Raises `InvalidContext`.
        """
        return self.evaluate_lock_key(context, metadata), self._fairness(context, metadata) if self.are_fair else None

    def evaluate_lock_key(self, context: BaseModel, metadata: Mapping[str, Any]) -> str:
        """Return the lock key of this context and metadata, or "" if there is none. Raises `InvalidContext`."""
        return _evaluate(self._name, "lock key", self.lock_key, context, metadata) if self.lock_key else ""

    def _fairness(self, context: BaseModel, metadata: Mapping[str, Any]) -> str:
        partition = ""
        if self._fair_key:
            partition = shared_partition(_evaluate(self._name, "fair key", self._fair_key, context, metadata))
        return partition + joined(self._limits(context, metadata))

    def _limits(self, context: BaseModel, metadata: Mapping[str, Any]) -> list[Limit]:
        limits = []
        task_rate = "" if self._concurrency_key else self._rate
        if self._concurrency is not None or task_rate:
            limits.append(limit_of(task_key(self._name), self._concurrency, task_rate))
        if self._concurrency_key:
            key = _evaluate(self._name, "concurrency key", self._concurrency_key, context, metadata)
            limits.append(limit_of(own_key(key), self._max_concurrency, self._rate))
        return limits


def _checked_template(name: str, option: str, template: object, context_type: type[BaseModel]) -> str:
    """Return the template of an option of task `name`, or "" for None.

    Raises `TaskDefinitionError` for an empty template, and for one that names what the context does not have.
    """
    if template is None:
        return ""
    if not isinstance(template, str) or not template.strip():
        raise TaskDefinitionError(
            f"Task {name!r}: {option}={template!r:.50} must be a template such as '{{metadata.organization_id}}'; "
            "leave it out for no key."
        )
    _check(name, option, template, context_type)
    return template


def _check(name: str, option: str, template: str, context_type: type[BaseModel]) -> None:
    try:
        fields = list(_fields(template))
    except (ValueError, TypeError) as error:
        raise TaskDefinitionError(f"Task {name!r}: {option} {template!r} is not a template: {error}.") from error
    known = {*context_type.model_fields, *context_type.model_computed_fields}
    for field in fields:
        root = field.split(".")[0].split("[")[0]
        if root == METADATA and root not in known:
            if root == field:
                raise TaskDefinitionError(
                    f"Task {name!r}: {option} {template!r} uses all of the metadata; name a key, such as "
                    "{metadata.organization_id}."
                )
        elif root not in known:
            raise TaskDefinitionError(
                f"Task {name!r}: {option} {template!r} uses {root or '{}'!r}, but {context_type.__name__} "
                f"has only: {', '.join(sorted(known)) or 'no fields'}."
            )
        if _PRIVATE.search(field):
            raise TaskDefinitionError(f"Task {name!r}: {option} {template!r} uses a private attribute: {field!r}.")


def _checked_count(name: str, option: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_COUNT:
        raise TaskDefinitionError(f"Task {name!r}: {option}={value!r:.50} must be a whole number from 1 on.")
    return value


def _checked_rate(name: str, value: object) -> str:
    if value is None:
        return ""
    try:
        parse_rate(value)  # type: ignore[arg-type]  # checks the type
    except ValueError as error:
        raise TaskDefinitionError(f"Task {name!r}: rate_limit: {error}") from None
    return str(value)


def _evaluate(name: str, kind: str, template: str, context: BaseModel, metadata: Mapping[str, Any]) -> str:
    """Return the key of this context and metadata; `kind` names it in messages.

    Raises `InvalidContext`, also for a field that is None and for a key that the metadata does not have.
    """
    try:
        key = _Formatter().vformat(template, (), _Context(context, metadata))
    except Exception as error:  # a field's own __format__ may raise anything
        raise InvalidContext(
            _("Task %(name)r: the %(kind)s %(template)r cannot be evaluated for this %(type)s: %(error)s.")
            % {"name": name, "kind": kind, "template": template, "type": type(context).__name__, "error": error}
        ) from error
    if not 1 <= len(key) <= MAX_KEY or not is_storable(key):
        raise InvalidContext(
            _("Task %(name)r: the %(kind)s %(key)r has %(length)s characters; 1 to %(maximum)s are allowed.")
            % {"name": name, "kind": kind, "key": key[:80], "length": len(key), "maximum": MAX_KEY}
        )
    return key


def _fields(template: str) -> Iterator[str]:
    for _text, field, specification, _conversion in string.Formatter().parse(template):
        if field is not None:
            yield field
            yield from _fields(specification or "")


class _Formatter(string.Formatter):
    """Refuses None: "user:None" would be one line for everybody who has no user."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        if value is None:
            raise LookupError(f"{field_name} is None")
        return value, used


class _Context(Mapping[str, Any]):
    """A context's fields by name, each read only if the template asks for it."""

    def __init__(self, context: BaseModel, metadata: Mapping[str, Any]) -> None:
        self._context = context
        self._metadata = metadata

    def __getitem__(self, name: str) -> Any:
        kind = type(self._context)
        # Not by hasattr: a context with `extra="allow"` has what callers send, who must not choose another's key.
        if name == METADATA and name not in kind.model_fields and name not in kind.model_computed_fields:
            return _Metadata(METADATA, self._metadata)
        return getattr(self._context, name)

    def __iter__(self) -> Iterator[str]:
        return iter(type(self._context).model_fields)

    def __len__(self) -> int:
        return len(type(self._context).model_fields)


class _Metadata:
    """Metadata in a template: `{metadata.organization_id}` or `{metadata[organization_id]}`."""

    def __init__(self, path: str, values: Mapping[str, Any]) -> None:
        self.__path, self.__values = path, values

    def __getitem__(self, key: str) -> Any:
        if key not in self.__values:
            known = ", ".join(map(repr, self.__values)) or "no keys"
            raise LookupError(f"{self.__path} has no {key!r} but {known}; enqueue it with metadata that has it")
        value = self.__values[key]
        return _Metadata(f"{self.__path}.{key}", value) if isinstance(value, Mapping) else value

    def __getattr__(self, key: str) -> Any:
        return self[key]

    def __format__(self, specification: str) -> str:
        raise LookupError(f"{self.__path} is an object; name one of its keys")
