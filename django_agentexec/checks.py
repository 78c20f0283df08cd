"""System checks: a wrong configuration is refused with a hint, before anything runs."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import mail
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .activity.store import database
from .conf import conf, unknown_settings, user_settings
from .exceptions import AgentExecError, InvalidOption
from .validation import MIN_AGE, QUEUE_NAME, is_storable


def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse unknown keys and impossible values of `AGENTEXEC`."""
    messages: list[CheckMessage] = []
    try:
        user_settings()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Write AGENTEXEC = {'CONCURRENCY': 50}.", id="agentexec.E001")]
    for name, close in unknown_settings().items():
        hint = f"Did you mean {close!r}?" if close else "See the list of settings in the documentation."
        messages.append(Error(f"AGENTEXEC has no setting {name!r}.", hint=hint, id="agentexec.E002"))
    return messages + _impossible_values()


def _impossible_values() -> list[CheckMessage]:
    problems = ((setting, _problem_of(setting.name)) for setting in conf)
    return [Error(text, hint=setting.help, id="agentexec.E001") for setting, text in problems if text]


def _problem_of(name: str) -> str:
    """Return why a setting has an impossible value, or "" if it has none."""
    try:
        getattr(conf, name)
    except ImproperlyConfigured as error:
        return str(error)
    return ""


def _are_possible(*names: str) -> bool:
    """Return whether a check can read these settings; `check_settings` reports those that it cannot."""
    return not any(map(_problem_of, names))


def check_templates(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse queue names and templates of text that would fail at their first use."""
    messages = _queue_names(conf.QUEUES) if _are_possible("QUEUES") else []
    if _are_possible("QUEUES", "QUEUE_WEIGHTS"):
        messages += _queue_weights()
    return messages + _templates()


def _queue_weights() -> list[CheckMessage]:
    from .pool.queue_weights import check_weights

    try:
        check_weights(conf.QUEUE_WEIGHTS)
    except InvalidOption as error:
        hint = "Write {'high': 3, 'low': 1}, or leave the setting out to serve the queues in order."
        return [Error(f"AGENTEXEC['QUEUE_WEIGHTS']: {error}", hint=hint, id="agentexec.E006")]
    return [
        Warning(
            f"AGENTEXEC['QUEUE_WEIGHTS'] has a weight for queue {name!r}, which is not in AGENTEXEC['QUEUES'] "
            f"({', '.join(map(str, conf.QUEUES))}), so it has no effect.",
            hint=f"Did you mean {close[0]!r}?"
            if (close := difflib.get_close_matches(name, map(str, conf.QUEUES), 1))
            else "Remove it, or add the queue to AGENTEXEC['QUEUES']; pools with --queues take weights from there.",
            id="agentexec.W011",
        )
        for name in conf.QUEUE_WEIGHTS
        if name not in conf.QUEUES
    ]


def _queue_names(queues: list[Any]) -> list[CheckMessage]:
    if not queues:
        hint = "Without one, activities could wait nowhere: write ['default'], or leave the setting out."
        return [
            Error("AGENTEXEC['QUEUES'] is empty, but must name at least one queue.", hint=hint, id="agentexec.E006")
        ]
    return [
        Error(
            f"AGENTEXEC['QUEUES'] names {name!r}, which cannot be the name of a queue.",
            hint="A name has 1 to 100 letters, digits, '_', '.' and '-'.",
            id="agentexec.E006",
        )
        for name in queues
        if not (isinstance(name, str) and QUEUE_NAME.fullmatch(name))
    ]


def _templates() -> list[CheckMessage]:
    messages: list[CheckMessage] = []
    for setting in conf:
        if not _are_possible(setting.name):
            continue
        value = getattr(conf, setting.name)
        if setting.name.startswith("ACTIVITY_MESSAGE_") and not (value.strip() and is_storable(value)):
            text = f"AGENTEXEC[{setting.name!r}] is {value!r}, but must be text that a database can hold."
            messages.append(Error(text, hint="Leave it out for the default.", id="agentexec.E007"))
        if setting.placeholders is None or not (problem := setting.template_problem()):
            continue
        places = " and ".join(f"{{{name}}}" for name in setting.placeholders)
        messages.append(
            Error(
                f"AGENTEXEC[{setting.name!r}] is {value!r}, which cannot be filled in: {problem}.",
                hint=f"It may hold {places}; write other braces twice.",
                id="agentexec.E007",
            )
        )
    return messages


def check_rate(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a rate that REST framework would fail on at the first request."""
    if not _are_possible("API_CHANGE_RATE"):
        return []
    rate = conf.API_CHANGE_RATE
    if not rate or re.fullmatch(r"[1-9][0-9]{0,8}/(s|m|h|d)[a-z]*", rate):
        return []
    return [
        Error(
            f"AGENTEXEC['API_CHANGE_RATE'] is {rate!r}, which is not a rate.",
            hint="Write a number and a period: '120/min'. Periods are s, min, hour and day; empty is no limit.",
            id="agentexec.E011",
        )
    ]


# The settings that a queue backend of this package reads when it is made.
_QUEUE_SETTINGS = (
    *("QUEUE_BACKEND", "KEY_PREFIX", "REDIS_URL", "REDIS_TIMEOUT", "LEASE"),
    *("EMBEDDED", "EMBEDDED_DIR", "EMBEDDED_IN_PRODUCTION"),
)


def check_queue(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a queue backend that cannot be made, and a server that cannot serve it, if one answers."""
    from .queues import get_queue
    from .queues.redis.connection import cache_backend_error, cluster_error

    if not _are_possible(*_QUEUE_SETTINGS):
        return []
    try:
        get_queue()
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint=f"Give the dotted path of a class instead of {conf.QUEUE_BACKEND!r}, or leave the setting out.",
                id="agentexec.E003",
            )
        ]
    if problem := cache_backend_error():
        return [
            Error(
                problem,
                hint="Correct the setting, or name another backend in AGENTEXEC['QUEUE_BACKEND'].",
                id="agentexec.E004",
            )
        ]
    if problem := cluster_error():
        return [Error(problem, hint=f"Change {get_queue().server_setting}.", id="agentexec.E009")]
    return []


def check_task_queues(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of tasks whose queue is not in `AGENTEXEC["QUEUES"]`.

    `manage.py check` imports every `agents` module for it. Other commands look at the tasks that are imported anyway:
    an agents SDK takes more than a second, which `migrate` and cron jobs should not spend.
    """
    from .tasks.options import undeclared_queue_problem
    from .tasks.registry import registry

    if not _are_possible("QUEUES") or not conf.QUEUES or not all(isinstance(name, str) for name in conf.QUEUES):
        return []  # reported by `check_settings` or `check_templates`
    if sys.argv[1:2] == ["check"]:
        try:
            registry.discover()
        except Exception as error:  # noqa: BLE001  # an agents module may raise anything
            return [
                Error(
                    f"Not every agents module can be imported: {type(error).__name__}: {error}",
                    hint="Without it no pool starts. `runagentworkers` shows the traceback.",
                    id="agentexec.E010",
                )
            ]
    problems = {task.name: undeclared_queue_problem(task.queue) for task in registry.known()}
    return [
        Warning(
            f"Task {name!r}: {problem}",
            hint="Correct the name, or add it to AGENTEXEC['QUEUES'] and run the other pools with --queues.",
            id="agentexec.W010",
        )
        for name, problem in sorted(problems.items())
        if problem
    ]


def check_policy(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a policy that cannot be made."""
    from .policy import get_policy

    if not _are_possible("POLICY"):
        return []
    try:
        get_policy()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Give the dotted path of a class derived from Policy.", id="agentexec.E008")]
    return []


def check_trace(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a function of `TRACE_REDACT` that cannot be imported: every value of the trace would be hidden."""
    from .calls.content import trace_redactor

    if not _are_possible("TRACE_REDACT"):
        return []
    try:
        trace_redactor()
    except Exception as error:  # noqa: BLE001  # any error of the project's module
        return [
            Error(
                f"AGENTEXEC['TRACE_REDACT'] is {conf.TRACE_REDACT!r}, which cannot be used: {error}",
                hint="Give a function of a value, its field and its call, or its dotted path.",
                id="agentexec.E017",
            )
        ]
    return []


def check_age_of_calls(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a small number of seconds after which pools delete calls: days may be meant."""
    if not _are_possible("KEEP_CALLS"):
        return []  # reported by `check_settings`
    age = user_settings().get("KEEP_CALLS", 0)
    if not isinstance(age, (int, float)) or not 0 < age < MIN_AGE:
        return []
    return [
        Warning(
            f"AGENTEXEC['KEEP_CALLS'] is {age!r}: pools delete the calls of activities that ended {age} seconds ago.",
            hint=f"Write '{age}d' if days are meant, otherwise '{age}s'.",
            id="agentexec.W012",
        )
    ]


def check_limits(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse limits of models that cannot be read, or that no store can keep."""
    from .limits import get_store, limits

    if not _are_possible("MODEL_LIMITS", *_QUEUE_SETTINGS) or not conf.MODEL_LIMITS:
        return []
    try:
        limits()
    except ImproperlyConfigured as error:
        hint = "Write MODEL_LIMITS = {'gpt-5*': {'rpm': 500, 'tpm': 200_000, 'concurrency': 50}}."
        return [Error(str(error), hint=hint, id="agentexec.E018")]
    try:
        get_store()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Remove one of the two settings.", id="agentexec.E018")]
    return []


def check_embedded(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse the embedded server in production."""
    from django.conf import settings

    if not _are_possible("EMBEDDED", "EMBEDDED_IN_PRODUCTION"):
        return []
    if conf.EMBEDDED and not settings.DEBUG and not conf.EMBEDDED_IN_PRODUCTION and not _is_test_run():
        return [
            Error(
                "AGENTEXEC['EMBEDDED'] is on while DEBUG is off: the embedded server is made for development.",
                hint="Set AGENTEXEC['REDIS_URL'] to a Redis or Valkey server, or set EMBEDDED_IN_PRODUCTION.",
                id="agentexec.E005",
            )
        ]
    return []


def _is_test_run() -> bool:
    """Return whether Django's test environment is set up: it turns DEBUG off, and alone makes an outbox for mail."""
    return hasattr(mail, "outbox")


def check_sqlite(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of SQLite in the mode in which two writers fail instead of waiting."""
    using = database()
    settings = connections[using].settings_dict
    if connections[using].vendor != "sqlite" or settings.get("OPTIONS", {}).get("transaction_mode"):
        return []
    return [
        Warning(
            f"DATABASES[{using!r}] is SQLite without a transaction mode: writers that meet fail with "
            "'database is locked' instead of waiting.",
            hint='Set OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, '
            '"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}.',
            id="agentexec.W001",
        )
    ]


def check_eviction(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a Redis that may drop work when its memory is full. Runs with `migrate` and `check --database`."""
    from .queues import EVICTING_POLICIES, get_queue

    try:
        policy = get_queue().eviction_policy()
    except (AgentExecError, ImproperlyConfigured):
        return []  # `migrate` must work before Redis does
    if policy not in EVICTING_POLICIES:
        return []
    return [
        Warning(
            f"The queue's Redis has maxmemory-policy {policy!r}: with its memory full it drops waiting activities.",
            hint="Set maxmemory-policy to 'noeviction' (or a 'volatile-...' one), or use a separate server for the "
            "queue. The reconciler finds dropped activities again, with a delay.",
            id="agentexec.W002",
        )
    ]


def install() -> None:
    """Register the checks; called when the app is ready."""
    for check in (
        *(
            check_settings,
            check_templates,
            check_rate,
            check_queue,
            check_policy,
            check_trace,
            check_age_of_calls,
            check_limits,
            check_embedded,
        ),
        check_sqlite,
    ):
        register(check, "agentexec")
    register(check_task_queues, "agentexec_tasks")
    register(check_eviction, Tags.database)
