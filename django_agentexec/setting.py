"""`Setting`: one key of `settings.AGENTEXEC`, with its type, default, bounds and help."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext

from .parsing import parse_duration

P = ParamSpec("P")
T = TypeVar("T")


# What a column of the database, and what a timer can hold: 31 years.
_LARGEST: Mapping[type, int] = {int: 2_147_483_647, float: 1_000_000_000}


class Setting(Generic[T]):
    """One key of `settings.AGENTEXEC`.

    `minimum` is inclusive. A value of another type than the default's, none of the `choices`, or text that does not
    match `pattern` raises `ImproperlyConfigured` on access. A setting of type float is a number of seconds in most
    cases, and accepts integers, timedeltas and, with `accepts_duration`, text such as `30d`; one of type text
    accepts lazy translations and, with `accepts_class` or `accepts_callable`, a class or function in place of its
    dotted path. `placeholders` are the fields of a template, with an example of each. The default of a setting that
    `is_translated` is a message id, read in the language of the site.
    """

    def __init__(
        self,
        default: T,
        help: str,
        *,
        minimum: float | None = None,
        choices: Sequence[T] | None = None,
        pattern: str | None = None,
        placeholders: Mapping[str, object] | None = None,
        is_translated: bool = False,
        accepts_class: bool = False,
        accepts_callable: bool = False,
        accepts_duration: bool = False,
    ) -> None:
        self.default = default
        self.help = help
        self.minimum = minimum
        self.choices = choices
        self.pattern = pattern
        self.placeholders = placeholders
        self.is_translated = is_translated
        self.accepts_class = accepts_class
        self.accepts_callable = accepts_callable
        self.accepts_duration = accepts_duration
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Setting[T] | T:
        if instance is None:
            return self
        values = user_settings()
        if self.name in values:
            value = self.validated(values[self.name])
            if isinstance(value, Promise):
                return cast("T", str(value))  # in the language that is active now; not kept
        elif self.is_translated:
            value = self.validated(_translated(str(self.default), django_settings.LANGUAGE_CODE))
        else:
            value = self.default
        # As an attribute of the instance, which Python finds without a call of this method.
        instance.__dict__[self.name] = value
        return value

    def validated(self, value: Any) -> T:
        """Return `value` in this setting's type, or raise `ImproperlyConfigured`."""
        expected = str if isinstance(self.default, Promise) else type(self.default)
        if self.accepts_duration and isinstance(value, str):
            value = self._duration(value)
        if expected is float and isinstance(value, timedelta):
            value = value.total_seconds()
        if (self.accepts_class and isinstance(value, type)) or (self.accepts_callable and callable(value)):
            return cast("T", value)
        if expected is float and type(value) is int:
            value = float(value)
        if expected is str and isinstance(value, Promise):
            return cast("T", value)
        if expected is str and isinstance(value, Path):
            value = str(value)
        if expected is list and isinstance(value, tuple):
            value = list(value)
        if not isinstance(value, expected) or (expected is not bool and isinstance(value, bool)):
            raise ImproperlyConfigured(
                f"AGENTEXEC[{self.name!r}] is {value!r}, but must be of type {expected.__name__}."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ImproperlyConfigured(f"AGENTEXEC[{self.name!r}] is {value!r}, but must be a finite number.")
        if self.choices is not None and value not in self.choices:
            known = ", ".join(repr(choice) for choice in self.choices)
            raise ImproperlyConfigured(f"AGENTEXEC[{self.name!r}] is {value!r}, but must be one of {known}.")
        if self.minimum is not None and value < self.minimum:  # type: ignore[operator]  # numbers only
            raise ImproperlyConfigured(f"AGENTEXEC[{self.name!r}] is {value!r}, but must be at least {self.minimum}.")
        largest = _LARGEST.get(expected)
        if largest is not None and value > largest:  # type: ignore[operator]  # as above
            raise ImproperlyConfigured(f"AGENTEXEC[{self.name!r}] is {value!r:.50}, but must be at most {largest:,}.")
        if self.pattern is not None and not re.fullmatch(self.pattern, str(value)):
            raise ImproperlyConfigured(f"AGENTEXEC[{self.name!r}] is {value!r}, but must match {self.pattern!r}.")
        return cast("T", value)

    def _duration(self, text: str) -> timedelta:
        try:
            found = parse_duration(text)
        except OverflowError:
            found = None
        if found is None:
            raise ImproperlyConfigured(
                f"AGENTEXEC[{self.name!r}] is {text!r}, but must be a number of seconds, a timedelta, or a duration "
                "such as '30d' (units: s, m, h, d, w)."
            )
        return found

    def template_problem(self) -> str:
        """Return why the template that is configured cannot be filled in, or "" if it can."""
        template = str(self.validated(user_settings().get(self.name, self.default)))
        try:
            template.format(**(self.placeholders or {}))
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def in_site_language(translate: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> str:
    """Call a gettext function in the language of the site, `LANGUAGE_CODE`.

    For texts that are stored: all users read them, whatever the language of the request that wrote them.
    """
    with translation.override(django_settings.LANGUAGE_CODE):
        return translate(*args, **kwargs)


@cache
def _translated(message: str, language: str) -> str:
    """Return a message in the language of the site; `language`, its code, is the key of the cache."""
    return in_site_language(gettext, message)


def user_settings() -> dict[str, Any]:
    """Return the project's `AGENTEXEC` dictionary (empty if there is none)."""
    values = getattr(django_settings, "AGENTEXEC", None) or {}
    if not isinstance(values, dict):
        raise ImproperlyConfigured(f"AGENTEXEC is a {type(values).__name__}, but must be a dictionary.")
    return values


def dotted_path(value: str | type) -> str:
    """Return the dotted path of a class, from itself or its path."""
    return value if isinstance(value, str) else f"{value.__module__}.{value.__qualname__}"
