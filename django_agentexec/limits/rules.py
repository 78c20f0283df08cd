"""The limits of the setting `MODEL_LIMITS`: their validation, and the limits that apply to a model."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import translate
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..parsing import as_seconds

SETTING = "AGENTEXEC['MODEL_LIMITS']"
MAX_COUNT = 1_000_000_000  # of rpm, tpm and concurrency
MAX_WINDOW = 86_400.0  # seconds
MAX_MODELS = 1_000  # names of models whose limits a process remembers
MAX_NAME = 60  # characters of a tenant in the name of a bucket
_WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Limit:
    """One limit for all models whose name matches `pattern`, which share it."""

    pattern: str
    """Of the model's name, or of `provider/name`; `*`, `?` and `[...]` are wildcards."""
    rpm: int = 0
    """Requests within a window; 0: no limit."""
    tpm: int = 0
    """Tokens within a window; 0: no limit."""
    concurrency: int = 0
    """Calls in progress; 0: no limit."""
    per: str = ""
    """A metadata key: each of its values has a separate limit."""
    window: float = 60.0
    """Seconds of the window."""
    margin: float = 1.0
    """Seconds by which the window is longer here than at the provider: the time that a request may take until it
    arrives there."""

    @property
    def rank(self) -> tuple[int, int, bool]:
        """Sort key: the most specific limit has the highest rank, and one for all tenants before one per tenant."""
        return (0 if _WILDCARDS.search(self.pattern) else 1, len(self.pattern), not self.per)

    @property
    def span(self) -> float:
        """Seconds for which a grant counts."""
        return self.window + self.margin


@dataclass(frozen=True)
class Bucket:
    """The state of a limit, or of a limit for one value of its metadata key, by the name of its keys."""

    name: str
    limit: Limit


class Limits:
    """All limits of a setting. Raises `ImproperlyConfigured`, with the place of the mistake, for an invalid setting."""

    def __init__(self, setting: Mapping[Any, Any]) -> None:
        self.all: list[Limit] = [limit for pattern, value in setting.items() for limit in _limits(pattern, value)]
        self._patterns = [(re.compile(translate(limit.pattern.lower())), limit) for limit in self.all]
        self._known: dict[tuple[str, str], tuple[Limit, ...]] = {}

    def of(self, model: str, provider: str) -> tuple[Limit, ...]:
        """Return the limits of a model: those per tenant first, then the more specific."""
        found = self._known.get((model, provider))
        if found is None:
            name = model.lower()
            names = (name, *(f"{each}/{name}" for each in provider_names(provider)))
            matching = [limit for pattern, limit in self._patterns if any(map(pattern.fullmatch, names))]
            found = tuple(sorted(matching, key=lambda limit: (bool(limit.per), limit.rank), reverse=True))
            if len(self._known) < MAX_MODELS:
                self._known[model, provider] = found
        return found


_current: tuple[Mapping[Any, Any], Limits] | None = None


def limits() -> Limits:
    """Return the limits of the settings."""
    global _current
    setting = conf.MODEL_LIMITS
    if _current is None or _current[0] is not setting:
        _current = setting, Limits(setting)
    return _current[1]


def provider_names(provider: str) -> Iterator[str]:
    """Yield the names of a provider in patterns: its name in genai-prices, or the host of its base URL.

    OpenAI and Azure have their names also where genai-prices is not installed.
    """
    lower = provider.lower()
    if lower:
        yield lower
    host = lower.partition(":")[0]
    if host == "api.openai.com":
        yield "openai"
    elif host.endswith((".openai.azure.com", ".services.ai.azure.com")):
        yield "azure"


def buckets_of(found: Sequence[Limit], metadata: Mapping[str, Any]) -> tuple[Bucket, ...]:
    """Return the buckets in which a call with this metadata counts."""
    return tuple(Bucket(_name(limit, metadata), limit) for limit in found)


def closest(buckets: Sequence[Bucket]) -> list[Bucket]:
    """Return the bucket that a refusal by the provider closes: that of the most specific limit."""
    return [max(buckets, key=lambda bucket: bucket.limit.rank)]


def tenant_of(metadata: Mapping[str, Any]) -> str:
    """Return the tenant of a call, by the metadata key of the setting `MODEL_LIMIT_TENANT`; "" without one."""
    key = conf.MODEL_LIMIT_TENANT
    return _text(metadata[key]) if key and key in metadata else ""


def _name(limit: Limit, metadata: Mapping[str, Any]) -> str:
    name = limit.pattern if limit.window == Limit.window else f"{limit.pattern}/{limit.window:g}s"
    if not limit.per:
        return name
    value = _text(metadata[limit.per]) if limit.per in metadata else ""
    return f"{name} {limit.per}={value}"


def _text(value: Any) -> str:
    """Return a metadata value as part of a key; a long or unprintable value as its digest."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= MAX_NAME and text.isprintable():
        return text
    return f"#{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:40]}"


_FIELDS = [each.name for each in fields(Limit) if each.name != "pattern"]


def _limits(pattern: Any, value: Any) -> list[Limit]:
    if not isinstance(pattern, str) or not pattern.strip() or len(pattern) > 200 or "\0" in pattern:
        raise ImproperlyConfigured(
            f"{SETTING} has the key {pattern!r}, but must have patterns of models such as 'gpt-5*' or 'openai/gpt-5*'."
        )
    where = f"{SETTING}[{pattern!r}]"
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    found = [_limit(where, pattern, entry) for entry in entries]
    if not found or len({(limit.per, limit.window) for limit in found}) < len(found):
        raise ImproperlyConfigured(f"{where} is {value!r}, but must have one dictionary for each 'per' and 'window'.")
    return found


def _limit(where: str, pattern: str, entry: Any) -> Limit:
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(
            f"{where} is {entry!r}, but must be a dictionary such as {{'rpm': 500, 'tpm': 200_000, 'concurrency': 50}}."
        )
    for name in entry:
        if name not in _FIELDS:
            close = difflib.get_close_matches(str(name), _FIELDS, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(_FIELDS)}."
            raise ImproperlyConfigured(f"{where} has the unknown key {name!r}. {hint}")
    for name in ("rpm", "tpm", "concurrency"):
        count = entry.get(name, 1)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
            raise ImproperlyConfigured(f"{where}[{name!r}] is {count!r}, but must be a whole number from 1.")
    for name, least in (("window", 0.1), ("margin", 0.0)):
        seconds = as_seconds(entry.get(name, least))
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
        if not is_number or not least <= seconds <= MAX_WINDOW:
            raise ImproperlyConfigured(
                f"{where}[{name!r}] is {entry[name]!r}, but must be a number of seconds from {least:g} to "
                f"{MAX_WINDOW:g}, or a timedelta."
            )
    if "per" in entry and not (isinstance(entry["per"], str) and entry["per"]):
        raise ImproperlyConfigured(
            f"{where}['per'] is {entry['per']!r}, but must be a key of the activities' metadata."
        )
    if not any(name in entry for name in ("rpm", "tpm", "concurrency")):
        raise ImproperlyConfigured(f"{where} is {dict(entry)!r}, but must have at least one of rpm, tpm, concurrency.")
    durations = {name: as_seconds(entry[name]) for name in ("window", "margin") if name in entry}
    return Limit(pattern=pattern, **{**entry, **durations})
