"""Every setting once: name, type, default, help. Read on access, so that `override_settings` works.

Projects write one dictionary, `AGENTEXEC = {"CONCURRENCY": 50}`; the package reads `conf.CONCURRENCY`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

T = TypeVar("T")

# What a column of the database, and what a timer can hold: 31 years.
_LARGEST: Mapping[type, int] = {int: 2_147_483_647, float: 1_000_000_000}


class Setting(Generic[T]):
    """One key of `settings.AGENTEXEC`.

    `minimum` is inclusive. A value of another type than the default's, none of the `choices`, or text that does not
    match `pattern` raises `ImproperlyConfigured` on access; an integer is accepted where a float is expected, and a
    lazy translation where text is. `placeholders` are the fields of a template, with an example of each.
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
    ) -> None:
        self.default = default
        self.help = help
        self.minimum = minimum
        self.choices = choices
        self.pattern = pattern
        self.placeholders = placeholders
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
        return self.validated(values[self.name]) if self.name in values else self.default

    def validated(self, value: Any) -> T:
        """Return `value` in this setting's type, or raise `ImproperlyConfigured`."""
        expected = type(self.default)
        if expected is float and type(value) is int:
            value = float(value)
        if expected is str and isinstance(value, Path | Promise):
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
        return value

    def template_problem(self) -> str:
        """Return why the template that is configured cannot be filled in, or "" if it can."""
        template = getattr(conf, self.name)
        try:
            template.format(**(self.placeholders or {}))
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def user_settings() -> dict[str, Any]:
    """Return the project's `AGENTEXEC` dictionary (empty if there is none)."""
    values = getattr(django_settings, "AGENTEXEC", None) or {}
    if not isinstance(values, dict):
        raise ImproperlyConfigured(f"AGENTEXEC is a {type(values).__name__}, but must be a dictionary.")
    return values


class Settings:
    """The package's settings, each an attribute. Times are in seconds, sizes as the name says."""

    QUEUE_BACKEND = Setting(
        "django_agentexec.queues.redis.RedisQueue", "Dotted path of the queue backend (`queues.base.Queue`)."
    )
    KEY_PREFIX = Setting(
        "agentexec",
        "Prefix of every Redis key and channel; one per project on a shared server.",
        # Braces delimit the part of a key by which a cluster places it.
        pattern=r"[^\s{}\x00-\x1f]{1,100}",
    )
    REDIS_URL = Setting(
        "", "Redis or Valkey of the queue (`redis://`, `rediss://` or `unix://`); from CACHES unless set."
    )
    REDIS_TIMEOUT = Setting(5.0, "Seconds a Redis command may take before it counts as failed.", minimum=0.05)
    EMBEDDED = Setting(False, "Start the Valkey server of the `embedded` extra instead of REDIS_URL or CACHES.")
    EMBEDDED_DIR = Setting("", "Folder of the embedded server; `.agentexec` beside manage.py unless set.")
    EMBEDDED_IN_PRODUCTION = Setting(False, "Allow the embedded server while DEBUG is off.")

    QUEUES = Setting(["default"], "Queues a pool listens to unless told otherwise, the first one first.")
    WORKERS = Setting(2, "Worker processes of a pool.", minimum=1)
    CONCURRENCY = Setting(50, "Activities that one worker process runs at once.", minimum=1)
    QUARANTINE_WORKERS = Setting(4, "Processes at most that run activities whose process died, one each.", minimum=1)
    START_METHOD = Setting(
        "",
        "How processes start: `forkserver` or `spawn`; the faster safe one unless set.",
        choices=("", "forkserver", "spawn"),
    )
    LEASE = Setting(15.0, "Seconds until the work of a silent worker is given to another.", minimum=0.3)
    GRACE_PERIOD = Setting(30.0, "Seconds that running activities get to finish after SIGTERM.", minimum=0)
    STUCK_TIMEOUT = Setting(30.0, "Seconds of a blocked event loop after which its process is killed.", minimum=1)
    RECONCILE_INTERVAL = Setting(15.0, "Seconds between two comparisons of database and Redis.", minimum=0.1)
    MAX_CRASHES = Setting(3, "Process deaths after which an activity is given up as `error`.", minimum=1)

    MAX_EXPIRED_LEASES = Setting(
        5, "Ended leases, of workers not heard from since, after which an activity is given up as `error`.", minimum=1
    )

    MAX_RETRIES = Setting(3, "Retries of a failed activity unless its task says otherwise.", minimum=0)
    TIMEOUT = Setting(0.0, "Seconds per attempt unless the task says otherwise; 0 is no limit.", minimum=0)
    MAX_CONTEXT_BYTES = Setting(1_000_000, "Largest context, as JSON, that can be enqueued.", minimum=2)
    MAX_RESULT_BYTES = Setting(10_000_000, "Largest result, as JSON, that can be stored.", minimum=2)
    MAX_METADATA_BYTES = Setting(64_000, "Largest metadata of an activity, as JSON.", minimum=2)
    MAX_MESSAGE_LENGTH = Setting(10_000, "Longest log message of a handler or an agent, in characters.", minimum=1)
    LOCK_TIMEOUT = Setting(
        5.0,
        "Seconds that `cancel`, `retry` and `update` wait for a row that another transaction has locked.",
        minimum=0.1,
    )
    STATUS_URL = Setting(
        "/agents/activities/{agent_id}/",
        "Path of an activity where the REST API is not mounted.",
        placeholders={"agent_id": ""},
    )
    STATUS_VIEW = Setting(
        "", "Name of the view that `status_url` leads to, with its namespace; the mounted REST API's unless set."
    )
    SOCKET_URL = Setting("/ws/agents/activities/", "Path of the live feed's websocket, for the admin; empty: it polls.")

    ADMIN_METADATA_COLUMNS = Setting(
        list[dict[str, str]](),
        "Metadata shown as columns of the admin's list: dictionaries with `key`, `label` and, for a link, `url`, "
        "in which `{value}` is the value.",
    )

    POLICY = Setting(
        "django_agentexec.policy.StaffPolicy", "Dotted path of the class that says who may see and do what."
    )
    STAFF_SEES_ALL_TENANTS = Setting(
        True, "Whether staff with the model permissions see every tenant under `TenantPolicy`; superusers always do."
    )
    EXPOSE_METADATA = Setting(False, "Send metadata over REST, websocket and SSE; it may name tenants and users.")
    METRICS = Setting(True, "Count what happens, for the dashboard's charts and the metrics endpoint.")
    HEALTH_TIMEOUT = Setting(3.0, "Seconds after which a probe of the health check counts as failed.", minimum=0.1)
    API_MAX_WAIT = Setting(30.0, "Seconds that a REST client may wait for a change (`?wait=`).", minimum=0)
    API_MAX_WAITS = Setting(2, "Requests of one user that wait at once in one WSGI process (`?wait=`).", minimum=1)
    API_CHANGE_RATE = Setting(
        "120/min", "Enqueues, retries and cancels of one user over REST, all together; empty: no limit."
    )
    COUNT_LIMIT = Setting(10_000, "Number up to which lists count; above, they say `at least`.", minimum=1)

    LIVE_MAX_CONNECTIONS = Setting(
        50, "Websockets and event streams (ASGI: waiting requests, too) of one user in one web process.", minimum=1
    )
    LIVE_INTERVAL = Setting(0.1, "Seconds between two live messages about the same activity, at least.", minimum=0.01)
    STREAM_MAX_ENTRIES = Setting(10_000, "Pieces of streamed text kept per activity; 20 a second at most.", minimum=1)
    STREAM_TTL = Setting(3600.0, "Seconds that streamed text is kept after its last piece.", minimum=1)

    ACTIVITY_MESSAGE_CREATE = Setting("Waiting to start.", "Log message of a new activity.")
    ACTIVITY_MESSAGE_STARTED = Setting("Task started.", "Log message when an attempt starts.")
    ACTIVITY_MESSAGE_PARKED = Setting(
        "Waiting for {activities}.",
        "Log message of an activity that waits for others, without a slot.",
        placeholders={"activities": "2 activities", "count": 2},
    )
    ACTIVITY_MESSAGE_WOKEN = Setting(
        "What it waited for has ended.", "Log message when an activity that waited is queued again."
    )
    ACTIVITY_MESSAGE_RESUMED = Setting("Task goes on.", "Log message when an activity that waited goes on.")
    ACTIVITY_MESSAGE_STEP = Setting(
        "Step {number} of {count}: {step}",
        "Log message when a pipeline's step begins.",
        placeholders={"number": 1, "count": 2, "step": "analysis"},
    )
    ACTIVITY_MESSAGE_STEP_RETRY = Setting(
        "Step {step} failed: {error}. Next try in {delay}.",
        "Log message of a step that will be repeated.",
        placeholders={"step": "analysis", "error": "ValueError: no", "delay": "1.0 s"},
    )
    ACTIVITY_MESSAGE_COMPLETE = Setting("Task completed successfully.", "Log message of a completed activity.")
    ACTIVITY_MESSAGE_ERROR = Setting(
        "Task failed with error: {error}",
        "Log message of a failed activity.",
        placeholders={"error": "ValueError: no"},
    )
    ACTIVITY_MESSAGE_INTERNAL_ERROR = Setting(
        "An internal error occurred.", "What users who may not monitor read instead of an exception's text."
    )
    ACTIVITY_MESSAGE_RETRY = Setting(
        "Attempt {attempt} failed: {error}. Next attempt in {delay}.",
        "Log message when an attempt will be repeated.",
        placeholders={"attempt": 1, "error": "ValueError: no", "delay": "1.0 s"},
    )
    ACTIVITY_MESSAGE_CANCELED = Setting("Task canceled.", "Log message of a canceled activity.")
    ACTIVITY_MESSAGE_REQUEUED = Setting("Task queued again.", "Log message of a manual retry.")
    ACTIVITY_MESSAGE_RELEASED = Setting(
        "Worker is shutting down; the task goes back to the queue.", "Log message of an attempt cut by a shutdown."
    )

    SCHEDULER_TIMEZONE = Setting("UTC", "Time zone of schedules that name none, as in `Europe/Berlin`.")
    SCHEDULER_INTERVAL = Setting(
        5.0, "Seconds at most until the scheduler notices a change; due times it awaits exactly.", minimum=0.1
    )
    SCHEDULER_MISFIRE_GRACE = Setting(
        60.0, "Seconds by which a scheduled run may be late; what is later counts as missed.", minimum=0
    )
    SCHEDULER_KEEP_RUNS = Setting(1_000, "Runs of one schedule that its history keeps.", minimum=1)

    RUNNER_LOG = Setting(
        "steps",
        "What a runner logs by itself: `none`, `agents`, `steps` (agents, tools, handoffs).",
        choices=("none", "agents", "steps"),
    )
    TRACING_API_KEY = Setting("", "Key for the agents SDK's trace export; without one, nothing is exported.")

    def __iter__(self) -> Iterator[Setting[Any]]:
        return (value for value in vars(type(self)).values() if isinstance(value, Setting))


def unknown_settings() -> dict[str, str]:
    """Return each key of `AGENTEXEC` that is no setting, with the closest name that is one (or "")."""
    known = [setting.name for setting in conf]
    unknown = [name for name in user_settings() if name not in known]
    return {name: next(iter(difflib.get_close_matches(str(name), known, 1)), "") for name in unknown}


conf = Settings()
