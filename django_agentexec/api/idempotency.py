"""`Idempotency-Key`: the same request again leads to the activity of the first one, and to nobody else's.

What is stored is a digest of key, user and tenant, then one of the request: so two callers with one key do not meet,
and one caller's key with another request is found out. It holds as long as the activity's row is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from ..models import Activity
from .errors import KeyReused

HEADER = "Idempotency-Key"
MAX_KEY = 255  # characters
_DIGITS = 64  # of one digest


def idempotency_key(request: Request, task: str, stamp: Mapping[str, Any], body: bytes) -> str | None:
    """Return the key for `enqueue`, or None without the header.

    `body` is valid JSON. Raises 400 for an impossible key, and 422 for one that came with another body or query
    before. One query.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return None
    if not (1 <= len(given) <= MAX_KEY and given.isascii() and given.isprintable()):
        raise ValidationError({HEADER: [f"{given[:80]!r}: give 1 to {MAX_KEY} printable ASCII characters."]})
    caller = _digest([str(request.user.pk), dict(stamp), given])
    key = caller + _digest([json.loads(body), request.query_params.urlencode()])
    # A range, since it uses the index in every collation, as a prefix would not.
    known = Activity.objects.filter(
        agent_type=task, idempotency_key__gte=caller + "0" * _DIGITS, idempotency_key__lte=caller + "f" * _DIGITS
    )
    if any(one != key for one in known.values_list("idempotency_key", flat=True)[:1]):
        raise KeyReused
    return key


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
