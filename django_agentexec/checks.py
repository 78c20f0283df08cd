"""System checks: a wrong configuration is refused with a hint, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import mail
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .activity.writer import database
from .conf import conf, unknown_settings, user_settings
from .exceptions import AgentExecError
from .values import QUEUE_NAME


@register("agentexec")
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
    messages: list[CheckMessage] = []
    for setting in conf:
        try:
            getattr(conf, setting.name)
        except ImproperlyConfigured as error:
            messages.append(Error(str(error), hint=setting.help, id="agentexec.E001"))
    return messages


@register("agentexec")
def check_templates(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse queue names and a status URL that would fail at the first enqueue."""
    if _impossible_values():
        return []  # told by `check_settings`
    queues, url = conf.QUEUES, conf.STATUS_URL
    messages: list[CheckMessage] = []
    if not queues or not all(isinstance(name, str) and QUEUE_NAME.fullmatch(name) for name in queues):
        messages.append(
            Error(
                f"AGENTEXEC['QUEUES'] is {queues!r}, but must name one queue at least.",
                hint="A name has 1 to 100 letters, digits, '_', '.' and '-'.",
                id="agentexec.E006",
            )
        )
    try:
        url.format(agent_id="")
    except (LookupError, ValueError, AttributeError) as error:
        messages.append(
            Error(
                f"AGENTEXEC['STATUS_URL'] is {url!r}, which cannot be filled in: {type(error).__name__}: {error}.",
                hint="It may hold one place: {agent_id}.",
                id="agentexec.E007",
            )
        )
    return messages


@register("agentexec")
def check_rate(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a rate that REST framework would fail on at the first request."""
    if _impossible_values():
        return []  # told by `check_settings`
    rate = conf.API_CHANGE_RATE
    if not rate or re.fullmatch(r"[1-9][0-9]{0,8}/(s|m|h|d)[a-z]*", rate):
        return []
    return [
        Error(
            f"AGENTEXEC['API_CHANGE_RATE'] is {rate!r}, which is no rate.",
            hint="Write a number and a period: '120/min'. Periods are s, min, hour and day; empty is no limit.",
            id="agentexec.E009",
        )
    ]


@register("agentexec")
def check_queue(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a queue backend that cannot be made. Connects to nothing."""
    from .queues import get_queue
    from .queues.connection import cache_backend_error

    if _impossible_values():
        return []  # told by `check_settings`
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
    problem = cache_backend_error()
    if not problem:
        return []
    return [Error(problem, hint="Or use a queue backend that needs no Redis.", id="agentexec.E004")]


@register("agentexec")
def check_policy(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a policy that cannot be made."""
    from .policy import get_policy

    if _impossible_values():
        return []  # told by `check_settings`
    try:
        get_policy()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Give the dotted path of a class derived from Policy.", id="agentexec.E008")]
    return []


@register("agentexec")
def check_embedded(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse the embedded server in production."""
    from django.conf import settings

    if _impossible_values():
        return []  # told by `check_settings`
    if conf.EMBEDDED and not settings.DEBUG and not conf.EMBEDDED_IN_PRODUCTION and not _is_test_run():
        return [
            Error(
                "AGENTEXEC['EMBEDDED'] is on while DEBUG is off: the embedded server is made for development.",
                hint="Point CACHES['agentexec'] at a Redis or Valkey server, or set EMBEDDED_IN_PRODUCTION.",
                id="agentexec.E005",
            )
        ]
    return []


def _is_test_run() -> bool:
    """Whether Django's test environment is set up: it turns DEBUG off, and alone makes an outbox for mail."""
    return hasattr(mail, "outbox")


@register("agentexec")
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


@register(Tags.database)
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
            hint="Set maxmemory-policy to 'noeviction' (or a 'volatile-...' one), or give the queue a server of "
            "its own. Dropped activities are found again by the reconciler, late.",
            id="agentexec.W002",
        )
    ]
