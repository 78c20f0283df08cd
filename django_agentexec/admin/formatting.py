"""Texts for durations, counts, times and JSON. `static/agentexec/js/format.js` writes durations and counts alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from ..money import dollars
from ..time_spans import largest_units


def units() -> dict[str, str]:
    """Return the abbreviations of the units of time, in the current language."""
    return {
        "s": pgettext("unit of time", "s"),
        "min": pgettext("unit of time", "min"),
        "h": pgettext("unit of time", "h"),
        "d": pgettext("unit of time", "d"),
    }


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units, such as "1.4 s", "3 min 4 s" or "2 d 5 h"; "" for None."""
    if seconds is None:
        return ""
    name_of = units()
    if seconds < 10:
        return f"{decimal(max(0.0, seconds))} {name_of['s']}"
    return " ".join(f"{number} {name_of[unit]}" for number, unit in largest_units(seconds))


def decimal(value: float) -> str:
    """Return a number with one decimal, written as in the current language."""
    return str(number_format(f"{value:.1f}", use_l10n=True))


def count_text(number: int) -> str:
    """Return a whole number with its thousands set apart, as in the current language."""
    return str(number_format(number, use_l10n=True, force_grouping=True))


def percent(share: float) -> str:
    """Return a share (0 to 1) as a percentage; with one decimal below 10 %."""
    value = 100 * share
    return f"{decimal(value) if 0 < value < 10 else round(value)} %"


def compact(number: int) -> str:
    """Return a count in four characters or so: "950", "12.4k", "3.1M"."""
    for size, suffix in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            value = f"{number / size:.1f}".removesuffix(".0")
            return f"{number_format(value, use_l10n=True)}{suffix}"
    return str(number)


def money(amount: Decimal | None) -> str:
    """Return US dollars: "$1,204.50", "$0.017", "< $0.001", or "Unknown" for None, which is never 0."""
    if amount is None:
        return _("Unknown")
    if 0 < amount < Decimal("0.001"):
        return f"< {dollars(Decimal('0.001'), 3)}"
    return dollars(amount, 2 if amount >= 1 else 3 if amount else 0)


def moment(when: datetime) -> SafeString:
    """Return a time as an HTML element: short in the text, in full with its zone in the title."""
    local = local_time(when)
    return format_html(
        '<time class="ae-number" datetime="{}" title="{} {}">{}</time>',
        local.isoformat(),
        date_format(local, "Y-m-d H:i:s"),
        timezone.get_current_timezone_name(),
        short_time(local),
    )


def short_time(local: datetime) -> str:
    """Return the time of day for today, with the weekday for the days around it, and the date for all others."""
    days = abs((local.date() - local_time(timezone.now()).date()).days)
    if days == 0:
        return date_format(local, "H:i")
    if timedelta(days=days) < timedelta(days=7):
        return date_format(local, _("D j M, H:i"))
    return date_format(local, _("j M Y"))


def local_time(when: datetime) -> datetime:
    """Return a stored time in the current time zone; without time zones as it is."""
    return timezone.localtime(when) if timezone.is_aware(when) else when


def total_tokens(usage: Mapping[str, int] | None) -> int:
    """Return all tokens of a usage: its own total, or input and output together."""
    known = usage or {}
    return known.get("total_tokens") or known.get("input_tokens", 0) + known.get("output_tokens", 0)


def span(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds between two times, or None if one is missing."""
    return (end - start).total_seconds() if start and end else None


def pretty_json(value: Any) -> str:
    """Return a stored JSON value indented, one entry a line, with letters of every script as they are."""
    return json.dumps(value, indent=2, ensure_ascii=False)
