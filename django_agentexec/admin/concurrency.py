"""The admin of limits and pauses: plain Django. Each change applies to all workers as soon as it is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.apps import apps
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from ..changelists import StorableLookups
from ..concurrency.commands import validate_target
from ..exceptions import InvalidOption
from ..models import ConcurrencyLimit, Pause
from ..policy import get_policy
from .access import SharedRowsAccess, may_pause

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    LimitBase = ModelAdmin[ConcurrencyLimit]
    PauseBase = ModelAdmin[Pause]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as LimitBase

    PauseBase = LimitBase
else:
    from django.contrib.admin import ModelAdmin as LimitBase

    PauseBase = LimitBase


class ConcurrencyLimitAdmin(StorableLookups, SharedRowsAccess, LimitBase):
    """Limits of tasks and keys, such as of a tenant's plan; for users who see all tenants, since keys name tenants."""

    list_display = ("name", "scope", "maximum", "rate_limit")
    list_filter = ("scope",)
    search_fields = ("name",)

    def has_view_permission(self, request: HttpRequest, obj: ConcurrencyLimit | None = None) -> bool:
        """Whether the user may see limits."""
        return get_policy().may_monitor(request.user) and super().has_view_permission(request, obj)


class PauseForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only in the stubs
    """The form of a pause."""

    class Meta:
        model = Pause
        fields = ("scope", "name", "reason")

    def clean(self) -> dict[str, Any]:
        """Reject names that do not fit the scope."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "scope" in cleaned and "name" in cleaned:
            try:
                validate_target(cleaned["scope"], cleaned["name"])
            except InvalidOption as error:
                raise ValidationError({"name": str(error)}) from error
        return cleaned


class PauseAdmin(StorableLookups, PauseBase):
    """Paused queues, tasks and tenants. To add a row is to pause, to delete it is to resume."""

    form = PauseForm
    list_display = ("name", "scope", "reason", "actor", "created_at")
    list_filter = ("scope",)
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pause]:
        """Return the pauses that the user may change."""
        policy = get_policy()
        rows: QuerySet[Pause] = super().get_queryset(request)
        return rows.filter(pk__in=[row.pk for row in rows if policy.may_pause(request.user, row.scope, row.name)])

    def has_view_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """Whether the user may pause."""
        return _may_pause(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Whether the user may pause."""
        return may_pause(request)

    def has_delete_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """Whether the user may resume."""
        return _may_pause(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """A pause is added and deleted, not changed."""
        return False

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: bool) -> None:
        """Store the pause with its user. Raises `PermissionDenied` for what the user may not pause."""
        if not get_policy().may_pause(request.user, obj.scope, obj.name):
            raise PermissionDenied
        obj.actor = str(request.user.pk)
        super().save_model(request, obj, form, change)


def _may_pause(request: HttpRequest, obj: Pause | None) -> bool:
    return may_pause(request) if obj is None else may_pause(request, obj.scope, obj.name)
