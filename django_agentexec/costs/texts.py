"""What has made a run expensive, as text."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..money import dollars
from .runs import ExpensiveRunSchema

MANY_CALLS = 10
"""Calls of one tool from which on it is named."""


def reasons_of(run: ExpensiveRunSchema) -> list[str]:
    """Return what is likely to have made a run expensive."""
    found = []
    if run.tool is not None and run.tool_calls >= MANY_CALLS:
        text = _("the tool %(tool)s was called %(number)s times")
        found.append(text % {"tool": run.tool, "number": f"{run.tool_calls:,}"})
    if run.repeated_calls:
        text = ngettext(
            "%(number)s call failed or was made again", "%(number)s calls failed or were made again", run.repeated_calls
        )
        found.append(text % {"number": f"{run.repeated_calls:,}"})
    if run.attempts > 1:
        found.append(_("%(number)s attempts") % {"number": run.attempts})
    if run.calls > 1 and run.largest_call * 2 > run.cost:
        found.append(_("one call cost %(cost)s") % {"cost": dollars(run.largest_call)})
    return found
