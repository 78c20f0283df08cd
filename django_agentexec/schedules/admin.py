"""The admin of schedules: next runs, run now, enable and disable, and the history of runs.

A user with the permission to add or change schedules can run any registered task with any context. Running a schedule
immediately requires the permission `run_agentschedule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin, messages
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..changelists import StorableLookups
from ..exceptions import AgentExecError, ScheduleError
from ..models import Activity
from ..policy import get_policy
from .firing import run_now
from .forms import AgentScheduleForm
from .models import AgentSchedule, Origin, ScheduleRun
from .timing import TIMERS

UPCOMING_RUNS = 5

if TYPE_CHECKING:
    _ScheduleAdmin = admin.ModelAdmin[AgentSchedule]
    _RunAdmin = admin.ModelAdmin[ScheduleRun]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin

    _ScheduleAdmin = _RunAdmin = ModelAdmin
else:
    _ScheduleAdmin = _RunAdmin = admin.ModelAdmin


@admin.register(AgentSchedule)
class AgentScheduleAdmin(StorableLookups, _ScheduleAdmin):
    """The admin of schedules."""

    form = AgentScheduleForm
    list_display = ("name", "task", "times", "state", "next_run_at", "last_run_at", "total_run_count", "origin")
    list_filter = ("enabled", "origin", "task")
    list_select_related = TIMERS
    search_fields = ("name", "task", "description")
    actions = ("run_selected_now", "enable_selected", "disable_selected")
    readonly_fields = ("state", "upcoming_runs", "last_run_at", "total_run_count", "runs_link", "declared")
    fieldsets = (
        (None, {"fields": ("name", "description", "enabled", "state", "declared")}),
        (gettext_lazy("Task"), {"fields": ("task", "context", "metadata", "priority", "queue")}),
        (
            gettext_lazy("Due times"),
            {
                "fields": (*TIMERS, "timezone", "start_at", "expires_at", "repeat", "misfire"),
                "description": gettext_lazy("Choose one of crontab, interval, clocked and solar."),
            },
        ),
        (gettext_lazy("Runs"), {"fields": ("upcoming_runs", "last_run_at", "total_run_count", "runs_link")}),
    )

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may run schedules immediately."""
        return request.user.has_perm(f"{self.opts.app_label}.run_{self.opts.model_name}")

    def get_deleted_objects(
        self, objs: QuerySet[AgentSchedule] | Sequence[AgentSchedule], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Allow to delete the runs of a schedule with it, although no permission to delete runs exists."""
        objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        return objects, counts, needed - {str(ScheduleRun._meta.verbose_name)}, protected

    # Columns and read-only fields

    @admin.display(description=gettext_lazy("due"))
    def times(self, schedule: AgentSchedule) -> str:
        """Return a description of the timer."""
        return str(schedule.timer)

    @admin.display(description=gettext_lazy("state"))
    def state(self, schedule: AgentSchedule) -> str:
        """Return the state of the schedule, with the full text of an error."""
        if schedule.last_error:
            return _("error: %(error)s") % {"error": schedule.last_error}
        if not schedule.enabled:
            return _("disabled")
        if schedule._state.adding:
            return _("new")
        return _("active") if schedule.next_run_at else _("over: no due time is left")

    @admin.display(description=gettext_lazy("next runs"))
    def upcoming_runs(self, schedule: AgentSchedule) -> str:
        """Return the next five due times in the time zone of the schedule."""
        if schedule._state.adding:
            return _("available after saving")
        try:
            times = schedule.upcoming(UPCOMING_RUNS)
        except ScheduleError as error:
            return str(error)
        if not times:
            return _("none")
        return format_html_join(
            SafeString("<br>"), "{} {}", ((date_format(t, "D, d M Y H:i:s"), t.tzname()) for t in times)
        )

    @admin.display(description=gettext_lazy("history"))
    def runs_link(self, schedule: AgentSchedule) -> str:
        """Return a link to the history of the schedule."""
        if schedule._state.adding:
            return _("none")
        opts = ScheduleRun._meta
        url = reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_changelist")
        label = _("Runs and their activities")
        return format_html('<a href="{}?schedule__id__exact={}">{}</a>', url, schedule.pk, label)

    @admin.display(description=gettext_lazy("defined in"))
    def declared(self, schedule: AgentSchedule) -> str:
        """Return the origin of the schedule, and how long edits are kept."""
        if schedule.origin == Origin.ADMIN:
            return _("the admin")
        if not schedule.digest:
            return _("the code, but it was removed there")
        return _("the code; edits are kept until its definition in the code changes")

    # Actions

    @admin.action(description=gettext_lazy("Run selected schedules now"), permissions=["run"])
    def run_selected_now(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Enqueue the tasks of the schedules, independent of their due times."""
        for schedule in queryset:
            try:
                handle = run_now(schedule)
            except AgentExecError as error:
                text = _("Schedule %(schedule)s cannot run: %(error)s") % {"schedule": schedule, "error": error}
                self.message_user(request, text, messages.ERROR)
                continue
            entry = _("Run by hand: activity %(agent_id)s.") % {"agent_id": handle.agent_id}
            self.log_change(request, schedule, entry)
            link = _activity_link(handle.agent_id, self.admin_site)
            text = format_html(
                _("Schedule {schedule} runs now: activity {activity}."), schedule=schedule, activity=link
            )
            self.message_user(request, text)

    @admin.action(description=gettext_lazy("Enable selected schedules"), permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Enable the schedules from their next due times."""
        self._set_enabled(request, queryset, enabled=True)

    @admin.action(description=gettext_lazy("Disable selected schedules"), permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Disable the schedules."""
        self._set_enabled(request, queryset, enabled=False)

    def _set_enabled(self, request: HttpRequest, queryset: QuerySet[AgentSchedule], *, enabled: bool) -> None:
        changed = 0
        for schedule in queryset.filter(enabled=not enabled):
            schedule.enabled = enabled
            try:
                schedule.save()
            except ScheduleError as error:
                text = _("Schedule %(schedule)s cannot be changed: %(error)s") % {"schedule": schedule, "error": error}
                self.message_user(request, text, messages.ERROR)
                continue
            self.log_change(request, schedule, _("Enabled.") if enabled else _("Disabled."))
            changed += 1
        if enabled:
            text = ngettext("%(count)d schedule was enabled.", "%(count)d schedules were enabled.", changed)
        else:
            text = ngettext("%(count)d schedule was disabled.", "%(count)d schedules were disabled.", changed)
        self.message_user(request, text % {"count": changed})


@admin.register(ScheduleRun)
class ScheduleRunAdmin(StorableLookups, _RunAdmin):
    """The read-only admin of the history of schedules."""

    list_display = ("due_at", "schedule", "kind", "activity_link", "status", "delay", "error")
    list_display_links = None
    fields = list_display
    readonly_fields = ("activity_link", "status", "delay")
    list_filter = ("kind", "schedule")
    list_select_related = ("schedule", "activity")
    date_hierarchy = "due_at"
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduleRun]:
        """Load only the columns of the list, and whether the policy shows the activity to the user."""
        runs = super().get_queryset(request).only(
            "due_at", "kind", "error", "created_at", "schedule__name", "activity__status"
        )  # fmt: skip
        visible = get_policy().visible(request.user, Activity.objects.all())
        found: QuerySet[ScheduleRun] = runs.annotate(is_visible=Exists(visible.filter(pk=OuterRef("activity_id"))))
        return found

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: only the scheduler writes runs."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ScheduleRun | None = None) -> bool:
        """Return False: the history is read-only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ScheduleRun | None = None) -> bool:
        """Return False: the scheduler prunes the history, and it is deleted with its schedule."""
        return False

    @admin.display(description=gettext_lazy("activity"))
    def activity_link(self, run: ScheduleRun) -> str:
        """Return a link to the activity."""
        return _activity_link(run.activity_id, self.admin_site) if run.is_visible else "-"  # type: ignore[attr-defined]  # annotated

    @admin.display(description=gettext_lazy("status"))
    def status(self, run: ScheduleRun) -> str:
        """Return the status of the activity."""
        return str(run.activity.get_status_display()) if run.activity and run.is_visible else "-"  # type: ignore[attr-defined]  # annotated

    @admin.display(description=gettext_lazy("late by"))
    def delay(self, run: ScheduleRun) -> str:
        """Return the delay of the enqueue after the due time."""
        return f"{(run.created_at - run.due_at).total_seconds():.1f} s"


def _activity_link(agent_id: object, site: admin.AdminSite) -> str:
    opts = Activity._meta
    try:
        url = reverse(f"{site.name}:{opts.app_label}_{opts.model_name}_change", args=[agent_id])
    except NoReverseMatch:
        return str(agent_id)
    return format_html('<a href="{}">{}</a>', url, agent_id)
