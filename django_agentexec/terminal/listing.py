"""`agentexec list`: the activities that match, active activities first."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..activity.queries import page_of
from ..schemas import ActivityListItemSchema
from .arguments import add_filters, positive
from .command import OK, Output, Subcommand
from .selection import select
from .text import status_text
from .times import time_span


class List(Subcommand):
    """The list of activities."""

    help = gettext_lazy("list activities, active activities first")

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare filters and options."""
        add_filters(parser)
        parser.add_argument("--limit", type=positive, default=50, metavar="N", help=_("maximum number (default: 50)"))
        parser.add_argument("--json", action="store_true", help=_("print JSON in the shape of the REST list"))

    def run(self, out: Output, options: dict[str, Any]) -> int:
        """Write the list."""
        page = page_of(select(options).active_first(), 1, options["limit"])
        if options["json"]:
            out.json(page)
            return OK
        if not page.items:
            out.note(_("No activity matches."))
            return OK
        header = [_("id"), _("status"), "%", _("task"), _("age"), _("message")]
        out.table(header, [_row(item) for item in page.items], right=[2])
        text = (
            _("%(shown)s of at least %(total)s shown.") if page.total_is_bounded else _("%(shown)s of %(total)s shown.")
        )
        out.note(text % {"shown": len(page.items), "total": f"{page.total:,}"})
        return OK


def _row(item: ActivityListItemSchema) -> list[object]:
    age = (timezone.now() - item.created_at).total_seconds()
    message = item.error or item.latest_log_message or ""
    return [item.agent_id, status_text(item), item.percentage, item.agent_type, time_span(age), message]
