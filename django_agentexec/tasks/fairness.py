"""The options of a task for fairness: its fair key and its limits, evaluated for each activity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..concurrency.keys import limit_of, own_key, task_key
from ..exceptions import TaskDefinitionError
from ..queues import Limit
from ..queues.limits import joined, shared_partition
from ..rates import parse_rate
from ..validation import MAX_COUNT
from .lock_keys import checked_template, evaluate_key

if TYPE_CHECKING:
    from .options import TaskOptions


class Fairness:
    """The validated options of a task; false if it uses none. Raises `TaskDefinitionError`."""

    def __init__(self, name: str, options: TaskOptions, context_type: type[BaseModel]) -> None:
        self._name = name
        self._fair_key = checked_template(name, "fair_key", options.get("fair_key"), context_type)
        self._concurrency_key = checked_template(name, "concurrency_key", options.get("concurrency_key"), context_type)
        self._max_concurrency = _checked_count(name, "max_concurrency", options.get("max_concurrency"))
        self._concurrency = _checked_count(name, "concurrency", options.get("concurrency"))
        self._rate = _checked_rate(name, options.get("rate_limit"))
        if self._fair_key and options.get("lock_key"):
            raise TaskDefinitionError(
                f"Task {name!r} has both a fair_key and a lock_key. Lock keys take turns anyway: remove the fair_key."
            )
        if self._max_concurrency is not None and not self._concurrency_key:
            raise TaskDefinitionError(
                f"Task {name!r}: max_concurrency={self._max_concurrency} needs a concurrency_key such as "
                "'org:{metadata.organization_id}'; for a limit of the whole task use concurrency."
            )

    def __bool__(self) -> bool:
        return bool(self._fair_key or self._concurrency_key or self._rate or self._concurrency is not None)

    def evaluate(self, context: BaseModel, metadata: Mapping[str, Any]) -> str | None:
        """Return fair key and limits of an activity in the format of its row, or None. Raises `InvalidContext`."""
        if not self:
            return None
        partition = ""
        if self._fair_key:
            partition = shared_partition(evaluate_key(self._name, "fair key", self._fair_key, context, metadata))
        return partition + joined(self._limits(context, metadata))

    def _limits(self, context: BaseModel, metadata: Mapping[str, Any]) -> list[Limit]:
        limits = []
        task_rate = "" if self._concurrency_key else self._rate
        if self._concurrency is not None or task_rate:
            limits.append(limit_of(task_key(self._name), self._concurrency, task_rate))
        if self._concurrency_key:
            key = evaluate_key(self._name, "concurrency key", self._concurrency_key, context, metadata)
            limits.append(limit_of(own_key(key), self._max_concurrency, self._rate))
        return limits


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
