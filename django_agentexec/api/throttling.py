"""The throttle of changes: each one may cost a run, so they have a rate even where the project sets none."""

from __future__ import annotations

from rest_framework.settings import api_settings
from rest_framework.throttling import UserRateThrottle

from ..conf import conf

SCOPE = "agentexec_enqueue"


class ChangeThrottle(UserRateThrottle):
    """One allowance per user for all that changes or starts a run: enqueue, retry and cancel together.

    The rate is `AGENTEXEC["API_CHANGE_RATE"]`, or what the project's `DEFAULT_THROTTLE_RATES["agentexec_enqueue"]` says
    (None: no limit).
    """

    scope = SCOPE

    def get_rate(self) -> str | None:
        """Return the rate of the settings, read again for each request."""
        rates = api_settings.DEFAULT_THROTTLE_RATES or {}
        rate = rates.get(SCOPE, conf.API_CHANGE_RATE)
        return str(rate) if rate else None
