"""Whether a websocket was opened by a page of our own; asked by every consumer.

A browser sends its cookies with a websocket whatever page opens it, and the same-origin policy does not apply.
The rule is that of Django's CSRF protection: the page's host is the one that is being called, or one of
`CSRF_TRUSTED_ORIGINS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.http import is_same_domain

_DEFAULT_PORTS = {"http": "80", "https": "443"}
# As Django's own, for development without ALLOWED_HOSTS.
_DEBUG_HOSTS = [".localhost", "127.0.0.1", "[::1]"]


def is_own_origin(scope: Mapping[str, Any]) -> bool:
    """Whether the handshake's `Origin` is this site's, or a trusted one's. Without an `Origin` it is not."""
    headers = {name.lower(): value.decode("latin1") for name, value in scope.get("headers", [])}
    origin = headers.get(b"origin", "")
    try:
        parts = urlsplit(origin)
        netloc = _with_port(parts.netloc, parts.scheme)
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        return False
    host = headers.get(b"x-forwarded-host", "") if settings.USE_X_FORWARDED_HOST else ""
    host = (host or headers.get(b"host", "")).lower()
    allowed = settings.ALLOWED_HOSTS or (_DEBUG_HOSTS if settings.DEBUG else [])
    # A host that is not ours may have been pointed at us by its owner's name server.
    if validate_host(split_domain_port(host)[0], allowed) and netloc == _with_port(host, parts.scheme):
        return True
    return _is_trusted(parts)


def _is_trusted(origin: SplitResult) -> bool:
    for trusted in map(urlsplit, settings.CSRF_TRUSTED_ORIGINS):
        if trusted.scheme == origin.scheme and is_same_domain(
            _with_port(origin.netloc, origin.scheme), _with_port(trusted.netloc.lstrip("*"), origin.scheme)
        ):
            return True
    return False


def _with_port(netloc: str, scheme: str) -> str:
    """Return a host with its port, also where the port is the scheme's own."""
    netloc = netloc.lower()
    has_port = netloc.rpartition("]")[2].count(":") == 1
    return netloc if has_port else f"{netloc}:{_DEFAULT_PORTS.get(scheme, '')}"
