"""The admin of limits and pauses: plain Django. Each change applies to all workers as soon as it is committed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..changelists import StorableLookups
from ..concurrency.commands import validate_target
from ..exceptions import InvalidOption
from ..models import ConcurrencyLimit, LimitScope, Pause, PauseScope
from ..policy import get_policy
from .access import SharedRowsAccess, may_pause, may_resume, warn_of_unknown_task
from .actors import actor_names
from .values import NOTHING

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
        """Return whether the user may see limits."""
        return get_policy().may_monitor(request.user) and super().has_view_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: ConcurrencyLimit, form: Any, change: bool) -> None:
        """Store the limit, and warn of a task that this process does not have."""
        super().save_model(request, obj, form, change)
        if obj.scope == LimitScope.TASK:
            warn_of_unknown_task(request, obj.name)


class PauseForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only in the stubs
    """The form of a pause."""

    may_pause: Callable[[str, str], bool]
    """Whether the user may pause this; set by the admin."""

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
            # Before Django looks for the same pause: nobody else learns whether something is paused.
            if not self.may_pause(cleaned["scope"], cleaned["name"]):
                raise PermissionDenied
        return cleaned


class PauseAdmin(StorableLookups, PauseBase):
    """Paused queues, tasks and tenants. To add a row is to pause, to delete it is to resume."""

    form = PauseForm
    list_display = ("name", "scope", "reason", "by", "created_at")
    list_filter = ("scope",)
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pause]:
        """Return the pauses of what the user may pause."""
        policy = get_policy()
        rows: QuerySet[Pause] = super().get_queryset(request)
        return rows.filter(pk__in=[row.pk for row in rows if policy.may_pause(request.user, row.scope, row.name)])

    def get_form(self, request: HttpRequest, *args: Any, **options: Any) -> Any:
        """Return a form for what the user may pause."""
        form: Any = super().get_form(request, *args, **options)
        form.may_pause = staticmethod(partial(may_pause, request))  # Django has made the class for this request
        return form

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        """Return a list whose rows have the names of their users."""
        return type("NamedList", (_WithNames, super().get_changelist(request, **options)), {})

    @admin.display(description=_("by"), ordering="actor")
    def by(self, row: Pause) -> str:
        """Return the user who paused it, or the terminal."""
        return row.by or NOTHING  # type: ignore[attr-defined]  # set by the list

    def has_view_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """Return whether the user may pause."""
        return _may_pause(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may pause."""
        return may_pause(request)

    def has_delete_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """Return whether the user may resume."""
        return may_pause(request) if obj is None else may_resume(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        """Return False: a pause is added and deleted, not changed."""
        return False

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: bool) -> None:
        """Store the pause with its user. Raises `PermissionDenied` for what the user may not pause."""
        if not get_policy().may_pause(request.user, obj.scope, obj.name):
            raise PermissionDenied
        obj.actor = str(request.user.pk)
        super().save_model(request, obj, form, change)
        if obj.scope == PauseScope.TASK:
            warn_of_unknown_task(request, obj.name)


class _WithNames:
    """A list of pauses that reads the names of the users of its page together."""

    def get_results(self, request: HttpRequest) -> None:
        """Read a page."""
        super().get_results(request)  # type: ignore[misc]  # of ChangeList
        rows = list(self.result_list)  # type: ignore[has-type]  # of ChangeList
        names = actor_names([row.actor for row in rows], monitors=get_policy().may_monitor(request.user))
        for row in rows:
            row.by = names.get(row.actor or "", "")
        self.result_list = rows


def _may_pause(request: HttpRequest, obj: Pause | None) -> bool:
    return may_pause(request) if obj is None else may_pause(request, obj.scope, obj.name)
