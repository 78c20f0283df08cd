"""`ModelPrice`: prices of models that a project sets itself; they take precedence over those of genai-prices."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..validation import is_storable


def validate_pattern(text: str) -> None:
    """Raise `ValidationError` for a pattern with whitespace at its ends or with characters that no database stores."""
    if text != text.strip() or not is_storable(text):
        raise ValidationError(
            _("%(text)r has spaces at its ends or a NUL character; remove them."), params={"text": text}
        )


def today() -> date:
    """Return the current date in the time zone of the settings."""
    now = timezone.now()
    return timezone.localtime(now, timezone.get_default_timezone()).date() if timezone.is_aware(now) else now.date()


def _price_field(name: Any, help_text: Any, *, is_optional: bool = False) -> models.DecimalField[Any, Any]:
    return models.DecimalField(
        name,
        max_digits=14,
        decimal_places=6,
        validators=[MinValueValidator(Decimal(0))],
        null=is_optional,
        blank=is_optional,
        help_text=help_text,
    )


class ModelPrice(models.Model):
    """The price of the models that match a pattern, from a day on."""

    pattern = models.CharField(
        _("model"), max_length=200, validators=[validate_pattern],
        help_text=_("Name of the model, or a pattern with * and ?, such as gpt-5*. Letter case does not matter."),
    )  # fmt: skip
    provider = models.CharField(
        _("provider"), max_length=100, blank=True, default="", validators=[validate_pattern],
        help_text=_("A provider such as openai, or the host name of the model's server; empty: every provider."),
    )  # fmt: skip
    valid_from = models.DateField(
        _("valid from"), default=today, help_text=_("Calls that start on this day or later have this price.")
    )
    input_price = _price_field(_("input price"), _("US dollars for a million input tokens."))
    cached_price = _price_field(
        _("cached price"),
        _("US dollars for a million input tokens from the provider's cache; empty: the input price."),
        is_optional=True,
    )
    output_price = _price_field(_("output price"), _("US dollars for a million output tokens."))

    class Meta:
        db_table = "agentexec_model_price"
        verbose_name = _("model price")
        verbose_name_plural = _("model prices")
        ordering = ["pattern", "provider", "-valid_from"]
        constraints = [
            models.UniqueConstraint(fields=["pattern", "provider", "valid_from"], name="agentexec_price"),
            models.CheckConstraint(
                condition=models.Q(input_price__gte=0, output_price__gte=0)
                & (models.Q(cached_price__isnull=True) | models.Q(cached_price__gte=0)),
                name="agentexec_price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        provider = f" ({self.provider})" if self.provider else ""
        return f"{self.pattern}{provider}, {self.valid_from}"
