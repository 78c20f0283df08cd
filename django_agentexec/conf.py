"""The settings: name, type, default and help of each.

Projects write one dictionary, `AGENTEXEC = {"CONCURRENCY": 50}`; the package reads `conf.CONCURRENCY`. A value is
validated at its first access, and again after `override_settings`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from django.core.signals import setting_changed
from django.utils.translation import gettext_noop

from .setting import Setting, dotted_path, in_site_language, user_settings

__all__ = ["Setting", "Settings", "conf", "dotted_path", "in_site_language", "unknown_settings", "user_settings"]


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
    QUEUE_WEIGHTS: Setting[dict[str, int]] = Setting(
        {}, "Shares of a pool's queues in free slots, such as `{'high': 3, 'low': 1}`; empty: in order of precedence."
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
    BUDGET_OUTPUT_TOKENS = Setting(
        4_096,
        "Output tokens that a call of a model without `max_tokens` reserves in its budgets.",
        minimum=1,
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
    ACTIVITY_MESSAGE_WAITS_FOR_APPROVAL = Setting(
        gettext_noop("Waiting for approval: {tools}."),
        "Log message of an activity that is suspended until a person has approved or rejected calls of these tools.",
        placeholders={"tools": "send_letter"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_WAITS_FOR_ANSWER = Setting(
        gettext_noop("Waiting for an answer."),
        "Log message of an activity that is suspended until a person has answered.",
        placeholders={"tools": "ask_person"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_WAITS = Setting(
        gettext_noop("Waiting for {reason}."),
        "Log message of an activity that is suspended until a budget or the limit of a provider allows its next call.",
        placeholders={"reason": "a budget"},
        is_translated=True,
    )
    ACTIVITY_MESSAGE_WAITED = Setting(
        gettext_noop("The wait is over."),
        "Log message when an activity is queued again after a wait for a budget or the limit of a provider.",
        is_translated=True,
    )
    ACTIVITY_MESSAGE_DECIDED = Setting(
        gettext_noop("All decisions are made."),
        "Log message when an activity is queued again after a decision or an answer.",
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
    DURABLE = Setting(
        True, "Whether runners record each model and tool call, and answer recorded calls from the database."
    )
    MODEL_BREAKER: Setting[dict[str, Any]] = Setting(
        {"failures": 5, "window": 60.0, "open": 30.0, "rate": 0.5},
        "Circuit breakers of `ResilientModel`: a model whose calls fail at least `failures` times, and at least the "
        "share `rate` of them, within `window` is not called for `open` (both: seconds or a timedelta). "
        "`failures` 0: no breaker.",
    )
    MODEL_CACHE = Setting("default", "Alias in CACHES of the cache for answers of models.")
    MODEL_CACHE_TTL = Setting(
        86_400.0, "Seconds, or a timedelta, for which a cached answer of a model is used by default.", minimum=1
    )
    TRACE_CONTENT = Setting(
        "full",
        "Content that the trace shows and keeps: `full`, `outputs` (no arguments and inputs), or `none`. What a later "
        "attempt needs to resume is kept until the activity has ended.",
        choices=("full", "outputs", "none"),
    )
    TRACE_REQUESTS = Setting(False, "Store the raw request of each model call in the trace.")
    TRACE_REDACT: Setting[str | Callable[..., Any]] = Setting(
        "",
        "A function, or its dotted path, that returns the value to show, from a value of the trace, its field "
        "(`request`, `arguments`, `output`, `error`) and its call. If it fails, the value is hidden.",
        accepts_callable=True,
    )
    KEEP_CALLS = Setting(
        0.0,
        "Time for which the calls of ended activities are kept: seconds, a timedelta or text such as `30d`; 0: as long "
        "as the activity.",
        minimum=0,
        accepts_duration=True,
    )
    APPROVAL_TIMEOUT = Setting(
        0.0,
        "Time after which an approval expires by default: seconds, a timedelta or text such as `4h`; 0: never.",
        minimum=0,
        accepts_duration=True,
    )
    APPROVAL_ON_EXPIRY = Setting(
        "reject", "Default outcome of an expired approval.", choices=("approve", "reject", "fail")
    )
    OTEL_SPANS = Setting(
        True, "Create OpenTelemetry spans of recorded calls, if the project has configured a tracer provider."
    )
    OTEL_CONTENT = Setting(False, "Put inputs and outputs of calls into their spans, as TRACE_CONTENT permits.")
    OTEL_PROVIDER = Setting("openai", "The value of `gen_ai.provider.name` in spans.")
    MODEL_LIMITS = Setting(
        dict[str, Any](),
        "Limits of models for the whole fleet, by a pattern of the model's name or of `provider/name`: "
        "`{'gpt-5*': {'rpm': 500, 'tpm': 200_000, 'concurrency': 50}}`.",
    )
    MODEL_LIMIT_WAIT = Setting(
        5.0,
        "Seconds that a call waits for a limit in its slot; for longer waits, the activity is suspended.",
        minimum=0,
    )
    MODEL_LIMIT_TENANT = Setting(
        "organization_id", "Metadata key of the tenants, which take turns where calls wait for a limit."
    )
    TRACING_API_KEY = Setting("", "Key for the trace export of the agents SDK; without a key nothing is exported.")

    def reload(self) -> None:
        """Forget the values that were read, so that a changed setting takes effect."""
        self.__dict__.clear()

    def __iter__(self) -> Iterator[Setting[Any]]:
        return (value for value in vars(type(self)).values() if isinstance(value, Setting))


def unknown_settings() -> dict[str, str]:
    """Return each key of `AGENTEXEC` that is not a setting, with the closest setting (or ""), in any case."""
    known = [setting.name for setting in conf]
    unknown = [name for name in user_settings() if name not in known]
    return {name: next(iter(difflib.get_close_matches(str(name).upper(), known, 1)), "") for name in unknown}


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in ("AGENTEXEC", "LANGUAGE_CODE"):
        conf.reload()


def install() -> None:
    """Let `override_settings` change the settings of the package, too."""
    setting_changed.connect(_on_setting_changed)


conf = Settings()
