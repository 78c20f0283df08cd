"""How full the limits of models are. Limits per tenant are left out, since there may be any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.utils.translation import gettext as _

from ..conf import conf
from ..limits import Limit, Usage, get_store, limits
from ..limits.rules import buckets_of


@dataclass(frozen=True)
class LimitUsage:
    """A limit and its use."""

    name: str
    limit: Limit
    usage: Usage

    def used(self) -> Iterator[tuple[str, int, int]]:
        """Yield the kind, the use and the limit of each number that is limited."""
        if self.limit.rpm:
            yield "requests", self.usage.requests, self.limit.rpm
        if self.limit.tpm:
            yield "tokens", self.usage.tokens, self.limit.tpm
        if self.limit.concurrency:
            yield "concurrency", self.usage.in_progress, self.limit.concurrency

    def text(self) -> str:
        """Return the state as a text for people."""
        kinds = {"requests": _("requests"), "tokens": _("tokens"), "concurrency": _("calls in progress")}
        text = _("%(used)s of %(limit)s %(kind)s")
        parts = [text % {"used": f"{n:,}", "limit": f"{most:,}", "kind": kinds[kind]} for kind, n, most in self.used()]
        if self.usage.waiting:
            parts.append(_("%(number)s waiting") % {"number": f"{self.usage.waiting:,}"})
        if self.usage.closed:
            parts.append(_("closed by the provider for %(seconds).0f s") % {"seconds": self.usage.closed})
        return f"{self.name}: {', '.join(parts)}"


def limit_usage() -> list[LimitUsage]:
    """Return the limits of the settings that all tenants share. One round trip each. Raises `QueueUnavailable`."""
    shared = [limit for limit in limits().all if not limit.per]
    return [LimitUsage(bucket.name, bucket.limit, get_store().usage(bucket)) for bucket in buckets_of(shared, {})]


def limit_problems() -> list[str]:
    """Return a sentence for each limit that a provider has closed. Raises `QueueUnavailable`."""
    if not conf.MODEL_LIMITS:
        return []
    text = _("The provider refuses calls of models %(limit)r for %(seconds).0f s (waiting: %(number)s).")
    return [
        text % {"limit": each.name, "seconds": each.usage.closed, "number": f"{each.usage.waiting:,}"}
        for each in limit_usage()
        if each.usage.closed
    ]
