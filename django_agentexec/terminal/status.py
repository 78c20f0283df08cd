"""The status of an activity in the output of commands."""

from __future__ import annotations

from django.utils.translation import gettext as _

from ..schemas import ActivityListItemSchema


def status_text(item: ActivityListItemSchema) -> str:
    """Return the status; `paused` while a pause prevents its start, and what it waits for while it is suspended."""
    if item.paused:
        return _("paused")
    if item.waiting_for:
        return _("waiting: %(reason)s") % {"reason": item.waiting_for}
    return str(item.status)
