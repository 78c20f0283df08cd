"""The throttle of enqueueing: each one costs a run, so it has a rate even where the project sets none."""

from __future__ import annotations

from rest_framework.settings import api_settings
from rest_framework.throttling import UserRateThrottle

SCOPE = "agentexec_enqueue"
DEFAULT_RATE = "120/min"


class EnqueueThrottle(UserRateThrottle):
    """120 enqueues a minute per user, or what `DEFAULT_THROTTLE_RATES["agentexec_enqueue"]` says (None: no limit)."""

    scope = SCOPE

    def get_rate(self) -> str | None:
        """Return the rate of the settings, read anew for each request."""
        rates = api_settings.DEFAULT_THROTTLE_RATES or {}
        rate = rates.get(SCOPE, DEFAULT_RATE)
        return None if rate is None else str(rate)
