"""Alerts of the dashboard: the problems that monitoring finds, in the user's language and each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..conf import conf
from ..models import PauseScope, Status
from ..monitoring.overview import open_breakers, unserved
from ..monitoring.schemas import BreakerSchema, OverviewSchema, QueueSchema
from ..queues.breakers import BreakerState
from .formatting import count_text, duration, local_time, short_time
from .pauses import target_of

Alert = dict[str, Any]


def alerts(overview: OverviewSchema, list_url: str) -> list[Alert]:
    """Return the alerts, the worst first; none while Redis is unavailable, which has its own section."""
    if overview.workers is None:
        return []
    lines = {line.name: line for line in overview.queues}
    waiting = {name: _waiting(line) for name, line in lines.items()}
    names = dict.fromkeys([*conf.QUEUES, *(name for name, number in waiting.items() if number)])
    without_worker = unserved(overview.workers, names)
    silent = [worker for worker in overview.workers if not worker.is_alive]
    found = [_without_worker(name, waiting.get(name, 0), list_url) for name in without_worker]
    for worker in silent:
        seconds = (timezone.now() - worker.last_beat_at).total_seconds()
        found.append(
            _alert(
                "error",
                _("No heartbeat"),
                _("Worker %(host)s, pid %(pid)d") % {"host": worker.host, "pid": worker.pid},
                _("Its activities restart on another worker."),
                _("for %(time)s") % {"time": duration(max(seconds, 0))},
            )
        )
    failing = open_breakers(overview.breakers or [])
    found += map(_failing_model, failing)
    # The remaining problems, which have no structure, stand between those of workers and those of models.
    others = overview.problems[len(without_worker) + len(silent) : len(overview.problems) - len(failing)]
    return found + [_alert("attention", _("Problem"), "", text, "") for text in others]


def pause_alerts(pauses: Sequence[Mapping[str, Any]], overview: OverviewSchema, list_url: str) -> list[Alert]:
    """Return an alert for each pause, with a button that resumes for users who may."""
    waiting = {line.name: _waiting(line) for line in overview.queues}
    return [_paused(each, waiting, list_url) for each in pauses]


def _paused(pause: Mapping[str, Any], waiting: Mapping[str, int], list_url: str) -> Alert:
    scope, name = pause["scope"], pause["name"]
    held = _held(waiting.get(name, 0)) if scope == PauseScope.QUEUE else ""
    since = local_time(datetime.fromisoformat(pause["since"]))
    values = {"by": pause["by"], "time": short_time(since)}
    remedy = _("by %(by)s, %(time)s") % values if pause["by"] else _("since %(time)s") % values
    # A tenant is named by a key and a value of the metadata, as in the address of the list.
    wanted = [("metadata." + name.partition("=")[0], name.partition("=")[2])] if scope == PauseScope.TENANT else []
    query = urlencode([("status", Status.QUEUED.value), *(wanted or [(scope, name)])])
    alert = _alert(
        "paused",
        _("Paused"),
        pause["title"],
        ". ".join(filter(None, (held, pause["reason"]))),
        remedy,
        f"{list_url}?{query}",
    )
    return {**alert, "resume": target_of(scope, name) if pause["may_resume"] else ""}


def _failing_model(breaker: BreakerSchema) -> Alert:
    is_open = breaker.state == BreakerState.OPEN
    return _alert(
        "error" if is_open else "attention",
        _("Circuit breaker open") if is_open else _("Circuit breaker half open"),
        _("Model %(name)s") % {"name": breaker.name},
        _("Its calls fail: %(reason)s. Other models are called.") % {"reason": breaker.reason or "?"},
        _("A trial call follows in %(time)s.") % {"time": duration(breaker.retry_in)}
        if is_open
        else _("The next call decides whether it is called again."),
    )


def _without_worker(name: str, waiting: int, list_url: str) -> Alert:
    return _alert(
        "error" if waiting else "attention",
        _("No worker"),
        _("Queue %(name)s") % {"name": name},
        _held(waiting) if waiting else _("No worker process serves it."),
        _("Start a pool: %(command)s") % {"command": f"manage.py runagentworkers --queues {name}"},
        f"{list_url}?{urlencode({'life': 'active', 'queue': name})}" if waiting else "",
    )


def _held(waiting: int) -> str:
    held = ngettext("holds %(count)s activity", "holds %(count)s activities", waiting)
    return held % {"count": count_text(waiting)}


def _waiting(line: QueueSchema) -> int:
    return max(line.waiting_rows, (line.pending or 0) + (line.delayed or 0))


def _alert(status: str, label: str, subject: str, text: str, remedy: str, url: str = "") -> Alert:
    return {
        "status": status,
        "label": label,
        "subject": subject,
        "text": text,
        "remedy": remedy,
        "url": url,
        "link": _("Show activities"),
    }
