"""Limits of tasks and keys, and pauses of queues, tasks and tenants, which apply to all workers at once."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..choices import LimitScope, PauseScope
from ..validation import MAX_COUNT, is_storable
from .prices import validate_pattern

MAX_LIMIT_NAME = 500
MAX_PAUSE_NAME = 300


def validate_rate(text: str) -> None:
    """Raise `ValidationError` for a text that is no rate such as `10/m`."""
    from ..rates import parse_rate

    try:
        parse_rate(text)
    except ValueError as error:
        raise ValidationError(str(error)) from None
