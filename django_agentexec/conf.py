"""The settings: name, type, default and help of each.

Projects write one dictionary, `AGENTEXEC = {"CONCURRENCY": 50}`; the package reads `conf.CONCURRENCY`. A value is
validated at its first access, and again after `override_settings`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_noop

P = ParamSpec("P")
T = TypeVar("T")


# What a column of the database, and what a timer can hold: 31 years.
_LARGEST: Mapping[type, int] = {int: 2_147_483_647, float: 1_000_000_000}


class Setting(Generic[T]):
    """One key of `settings.AGENTEXEC`.

    `minimum` is inclusive. A value of another type than the default's, none of the `choices`, or text that does not
    match `pattern` raises `ImproperlyConfigured` on access. A setting of type float is a number of seconds in most
    cases, and accepts integers and timedeltas; one of type text accepts lazy translations and, with `accepts_class`, a
    class in place of its dotted path. `placeholders` are the fields of a template, with an example of each. The default
    of a setting that `is_translated` is a message id, read in the language of the site.
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
    ) -> None:
        self.default = default
        self.help = help
        self.minimum = minimum
        self.choices = choices
        self.pattern = pattern
        self.placeholders = placeholders
        self.is_translated = is_translated
        self.accepts_class = accepts_class
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
        if expected is float and isinstance(value, timedelta):
            value = value.total_seconds()
        if self.accepts_class and isinstance(value, type):
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

    def template_problem(self) -> str:
        """Return why the template that is configured cannot be filled in, or "" if it can."""
        template = getattr(conf, self.name)
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


class Settings:
    """The package's settings, each an attribute. Times are in seconds, sizes as the name says."""

    QUEUE_BACKEND: Setting[str | type] = Setting(
        "django_agentexec.queues.redis.RedisQueue",
        "The queue backend, a subclass of `queues.base.Queue`: a dotted path or the class.",
        accepts_class=True,
    )
    KEY_PREFIX = Setting(
        "agentexec",
        "Prefix of every Redis key and channel. Projects that share a server need different prefixes.",
        # Braces delimit the part of a key by which a cluster places it.
        pattern=r"[^\s{}\x00-\x1f]{1,100}",
    )
    REDIS_URL = Setting(
        "",
        "URL (`redis://`, `rediss://` or `unix://`) of the queue's server; by default the server in CACHES.",
    )
    REDIS_TIMEOUT = Setting(5.0, "Seconds after which a Redis command fails.", minimum=0.05)
    EMBEDDED = Setting(False, "Start the Valkey server of the `embedded` extra, and ignore REDIS_URL and CACHES.")
    EMBEDDED_DIR = Setting("", "Folder of the embedded server; by default `.agentexec` beside manage.py.")
    EMBEDDED_IN_PRODUCTION = Setting(False, "Allow the embedded server while DEBUG is off.")

    TASK_MODULES = Setting(
        ["agents", "tasks"], "Modules of each installed app that are imported for their tasks, such as `shop.agents`."
    )
    QUEUES = Setting(
        ["default"], "Queues of a pool by default, in order of precedence. The first is the default queue of a task."
    )
    WORKERS = Setting(2, "Worker processes of a pool.", minimum=1)
    CONCURRENCY = Setting(50, "Activities that each worker process runs at the same time.", minimum=1)
    QUARANTINE_WORKERS = Setting(
        4, "Maximum number of processes that repeat activities whose process died, one each.", minimum=1
    )
    START_METHOD = Setting(
        "",
        "How processes start: `forkserver` or `spawn`; by default the faster method that is safe.",
        choices=("", "forkserver", "spawn"),
    )
    LEASE = Setting(
        15.0,
        "Seconds without a heartbeat after which other workers take over a worker's activities.",
        minimum=0.3,
    )
    GRACE_PERIOD = Setting(30.0, "Seconds in which running activities may finish after SIGTERM.", minimum=0)
    STUCK_TIMEOUT = Setting(30.0, "Seconds after which a process with a blocked event loop is killed.", minimum=1)
    RECONCILE_INTERVAL = Setting(15.0, "Seconds between two comparisons of database and Redis.", minimum=0.1)
    MAX_CRASHES = Setting(3, "Process deaths after which an activity ends in `error`.", minimum=1)

    MAX_EXPIRED_LEASES = Setting(
        5, "Expired leases of unreachable workers after which an activity ends in `error`.", minimum=1
    )

    MAX_RETRIES = Setting(3, "Default number of retries of a failed activity.", minimum=0)
    TIMEOUT = Setting(0.0, "Default seconds per attempt; 0 is no limit.", minimum=0)
    MAX_CONTEXT_BYTES = Setting(1_000_000, "Maximum size of a context, as JSON.", minimum=2)
    MAX_RESULT_BYTES = Setting(10_000_000, "Maximum size of a result, as JSON.", minimum=2)
    MAX_METADATA_BYTES = Setting(64_000, "Maximum size of an activity's metadata, as JSON.", minimum=2)
    MAX_MESSAGE_LENGTH = Setting(
        10_000, "Maximum length of a log message of a handler or an agent, in characters.", minimum=1
    )
    LOCK_TIMEOUT = Setting(
        5.0,
        "Seconds that `cancel`, `retry` and `update` wait for a row that another transaction has locked.",
        minimum=0.1,
    )
    STATUS_URL = Setting(
        "/agents/activities/{agent_id}/",
        "Path of an activity if the REST API is not mounted.",
        placeholders={"agent_id": ""},
    )
    STATUS_VIEW = Setting(
        "", "Name of the view behind `status_url`, with its namespace; by default the view of the mounted REST API."
    )
    SOCKET_URL = Setting(
        "/ws/agents/activities/", "Path of the live websocket, for the admin. If it is empty, the admin polls."
    )

    ADMIN_METADATA_COLUMNS = Setting(
        list[dict[str, str]](),
        "Metadata shown as columns of the admin's list: dictionaries with `key`, `label` and, for a link, `url`, "
        "in which `{value}` is the value.",
    )

    POLICY: Setting[str | type] = Setting(
        "django_agentexec.policy.StaffPolicy",
        "The policy, which decides about every access: a dotted path or the class.",
        accepts_class=True,
    )
    STAFF_SEES_ALL_TENANTS = Setting(
        True, "Whether staff with the model permissions see every tenant under `TenantPolicy`, as superusers do."
    )
    EXPOSE_METADATA = Setting(False, "Send metadata over REST, websocket and SSE. It may name tenants and users.")
    METRICS = Setting(True, "Collect counters for the charts of the dashboard and the metrics endpoint.")
    HEALTH_TIMEOUT = Setting(3.0, "Seconds after which a probe of the health check counts as failed.", minimum=0.1)
    API_MAX_WAIT = Setting(30.0, "Maximum seconds that a REST request waits for a change (`?wait=`).", minimum=0)
    API_MAX_WAITS = Setting(
        2, "Maximum number of waiting requests (`?wait=`) of one user in one WSGI process.", minimum=1
    )
    API_CHANGE_RATE = Setting(
        "120/min", "Rate limit of enqueues, retries and cancels of one user over REST and websockets; empty: no limit."
    )
    COUNT_LIMIT = Setting(10_000, "Number up to which lists count; larger totals appear as `at least`.", minimum=1)

    LIVE_MAX_CONNECTIONS = Setting(
        50,
        "Maximum websockets and event streams (ASGI: also waiting requests) of one user in one web process.",
        minimum=1,
    )
    LIVE_INTERVAL = Setting(0.1, "Minimum seconds between two live messages about the same activity.", minimum=0.01)
    STREAM_MAX_ENTRIES = Setting(
        10_000, "Chunks of streamed text kept per activity; at most 20 are added per second.", minimum=1
    )
    STREAM_TTL = Setting(3600.0, "Seconds for which streamed text is kept after its last chunk.", minimum=1)

    ACTIVITY_MESSAGE_CREATE = Setting(
        gettext_noop("Waiting to start."), "Log message of a new activity.", is_translated=True
    )
    ACTIVITY_MESSAGE_STARTED = Setting(
        gettext_noop("Task started."), "Log message when an attempt starts.", is_translated=True
    )
    ACTIVITY_MESSAGE_PARKED = Setting(
        gettext_noop("Waiting for {activities}."),
        "Log message of an activity that is suspended until other activities have ended.",
        placeholders={"activities": "2 activities", "count": 2},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_WOKEN = Setting(
        gettext_noop("All child activities have finished."),
        "Log message when a suspended activity is queued again.",
        is_translated=True,
    )
    ACTIVITY_MESSAGE_RESUMED = Setting(
        gettext_noop("Task resumed."), "Log message when a suspended or deferred activity resumes.", is_translated=True
    )
    ACTIVITY_MESSAGE_STEP = Setting(
        gettext_noop("Step {number} of {count}: {step}"),
        "Log message when a pipeline's step starts.",
        placeholders={"number": 1, "count": 2, "step": "analysis"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_STEP_RETRY = Setting(
        gettext_noop("Step {step} failed: {error}. Next try in {delay}."),
        "Log message of a failed step that will be tried again.",
        placeholders={"step": "analysis", "error": "ValueError: no", "delay": "1.0 s"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_COMPLETE = Setting(
        gettext_noop("Task completed successfully."), "Log message of a completed activity.", is_translated=True
    )
    ACTIVITY_MESSAGE_ERROR = Setting(
        gettext_noop("Task failed with error: {error}"),
        "Log message of a failed activity.",
        placeholders={"error": "ValueError: no"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_INTERNAL_ERROR = Setting(
        gettext_noop("An internal error occurred."),
        "Text shown instead of an exception's text to users without the monitor permission.",
        is_translated=True,
    )
    ACTIVITY_MESSAGE_RETRY = Setting(
        gettext_noop("Attempt {attempt} failed: {error}. Next attempt in {delay}."),
        "Log message of a failed attempt that will be followed by another.",
        placeholders={"attempt": 1, "error": "ValueError: no", "delay": "1.0 s"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_CANCELED = Setting(
        gettext_noop("Task canceled."), "Log message of a canceled activity.", is_translated=True
    )
    ACTIVITY_MESSAGE_REQUEUED = Setting(
        gettext_noop("Task queued again."), "Log message of a manual retry.", is_translated=True
    )
    ACTIVITY_MESSAGE_RELEASED = Setting(
        gettext_noop("Worker is shutting down; the task returns to the queue."),
        "Log message of an attempt that a shutdown interrupts.",
        is_translated=True,
    )

    SCHEDULER_TIMEZONE = Setting("UTC", "Default time zone of schedules, such as `Europe/Berlin`.")
    SCHEDULER_INTERVAL = Setting(
        5.0, "Maximum seconds until the scheduler notices a changed schedule. Due times are exact.", minimum=0.1
    )
    SCHEDULER_MISFIRE_GRACE = Setting(
        60.0, "Maximum delay of a scheduled run, in seconds; a later run counts as missed.", minimum=0
    )
    SCHEDULER_KEEP_RUNS = Setting(1_000, "Number of runs that the history of a schedule keeps.", minimum=1)

    RUNNER_LOG = Setting(
        "steps",
        "Events that a runner logs: `none`, `agents`, or `steps` (agents, tools, handoffs).",
        choices=("none", "agents", "steps"),
    )
    TRACING_API_KEY = Setting("", "Key for the trace export of the agents SDK; without a key nothing is exported.")

    def reload(self) -> None:
        """Forget the values that were read, so that a changed setting takes effect."""
        self.__dict__.clear()

    def __iter__(self) -> Iterator[Setting[Any]]:
        return (value for value in vars(type(self)).values() if isinstance(value, Setting))


def unknown_settings() -> dict[str, str]:
    """Return each key of `AGENTEXEC` that is no setting, with the closest name that is one (or "")."""
    known = [setting.name for setting in conf]
    unknown = [name for name in user_settings() if name not in known]
    return {name: next(iter(difflib.get_close_matches(str(name), known, 1)), "") for name in unknown}


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in ("AGENTEXEC", "LANGUAGE_CODE"):
        conf.reload()


def install() -> None:
    """Let `override_settings` change the settings of the package, too."""
    setting_changed.connect(_on_setting_changed)


conf = Settings()
