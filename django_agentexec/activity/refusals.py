"""The reasons for which a change of an activity is refused, as texts. The reasons themselves are keys of JSON."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

NOT_PERMITTED = "not permitted"
_REASONS: dict[str, Promise] = {
    NOT_PERMITTED: _("not permitted"),
    "locked by another transaction": _("locked by another transaction"),
    "still queued": _("still queued"),
    "still running": _("still running"),
    "already complete": _("already complete"),
    "already error": _("already failed"),
    "already canceled": _("already canceled"),
    "never queued, driven by its creator": _("never queued, driven by its creator"),
    "its parent has failed or was canceled; retry the parent": _(
        "its parent has failed or was canceled; retry the parent"
    ),
}


def reason_text(reason: str) -> str:
    """Return the reason of a refusal in the current language."""
    return str(_REASONS.get(reason, reason))
