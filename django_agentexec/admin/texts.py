"""The texts of the scripts, translated by the server: a page hands them over as JSON, so no script holds a language."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from ..models import Status
from .formatting import units
from .status import SHOWN_REASONS, SUSPENDED, status_label


def script_texts() -> dict[str, object]:
    """Return the texts by key; `{name}` is a placeholder that the script fills."""
    return {
        "status": {str(status): status_label(str(status)) for status in Status}
        | {name: status_label(name) for name in (SUSPENDED, *map(str, SHOWN_REASONS))},
        "units": units(),
        **_connection(),
        **_list(),
        **_dashboard(),
        **_charts(),
        **_tables(),
    }


def _connection() -> dict[str, str]:
    return {
        "live": _("Live"),
        "polling": _("Updating"),
        "paused": _("Paused"),
        "away": _("No connection, retrying"),
        "outage": _("No connection to Redis, retrying every 5 s"),
        "refused": _("Signed out or not permitted. Reload the page."),
        "unknown": _("Unknown"),
        "now": _("now"),
        "at_time": _("{value} at {time}"),
    }


def _list() -> dict[str, str]:
    return {
        "show_new": _("Show {count} new"),
        "selected": _("{count} selected"),
        "new_rows": _("{count} new activities"),
        "progress_of": _("Progress of {name}"),
        "cancel_count": _("Cancel {count}"),
        "retry_count": _("Run {count} again"),
        "delete_count": _("Delete {count}"),
        "and_more": _("and {count} more"),
        "nothing_running": _("No activity is running."),
        "new_requests": _("{count} new requests"),
        "no_longer_waiting": _("No longer waiting: decided by somebody else, expired, or its activity has ended."),
        "new_turn": _("The conversation has a new turn."),
    }


def _dashboard() -> dict[str, str]:
    return {
        "database_started": _("database: {count} started"),
        "not_dispatched": _("saved, not dispatched"),
        "no_earlier_value": _("no earlier value"),
        "redis_unavailable": _("Redis unavailable"),
        "redis_unavailable_for": _("Redis unavailable for {time}"),
        "outage_announcement": _("Redis is unavailable. A part of the page is unknown."),
        "no_problems": _("All problems are solved."),
        "as_of": _("As of {time}; unknown since."),
        "alerts": _("Alerts"),
        "alerts_count": _("Alerts: {count}"),
        "busy_slots": _("{busy} of {count} slots busy"),
        # xgettext:no-python-format
        "failed_share": _("{share} % of {count}, past hour"),
        "and_canceled": _("past hour, {count} canceled"),
        "oldest": _("oldest {age}, in {queue}"),
        "oldest_request": _("oldest {age}"),
        "is_paused": _("Paused"),
        "paused_by": _("by {by}"),
        "pause": pgettext("verb", "Pause…"),
        "resume": _("Resume"),
        "model_available": _("Available"),
        "model_open": _("Circuit breaker open"),
        "model_half_open": _("Circuit breaker half open"),
        "trial_in": _("trial call in {time}"),
    }


def _charts() -> dict[str, str]:
    return {
        "throughput_none": _("No activity has ended in this time."),
        "throughput_summary": _("Ended: {totals}; at most {most} in one bar."),
        "waits_none": _("No activity has started in this time."),
        "waits_summary": _("Queue wait: p95 is at most {longest}."),
        "wait_of_bar": _("{time}: p50 {p50}, p95 {p95}"),
        "chart_unknown": _("Unknown while Redis is unavailable"),
    }


def _tables() -> dict[str, str]:
    return {
        "workers_unknown": _("Unknown: workers report to Redis, which is unavailable."),
        "no_worker": _("No worker is running. Start a pool: manage.py runagentworkers"),
        "no_queue": _("No queue is configured."),
        "no_minutes": _("Nothing is known of this time."),
        "ago": _("{age} ago"),
        "no_heartbeat_for": _("no heartbeat for {age}"),
        "quarantine": _("quarantine"),
        "pid": _("pid {pid}"),
        "load_of": _("Load of {host}, pid {pid}"),
        "of": _("{part} of {whole}"),
    }
