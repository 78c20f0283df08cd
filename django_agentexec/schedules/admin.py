"""The admin of schedules: the next runs, run now, enable and disable, and what became of each due time.

Who may add or change a schedule can have any registered task run with any context: give these permissions to
people who may. To run one now takes a permission of its own, `run_agentschedule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ..exceptions import AgentExecError, ScheduleError
from ..models import Activity
from .firing import run_now
from .forms import AgentScheduleForm
from .models import TIMERS, AgentSchedule, Origin, ScheduleRun

UPCOMING = 5

if TYPE_CHECKING:
    _ScheduleAdmin = admin.ModelAdmin[AgentSchedule]
    _RunAdmin = admin.ModelAdmin[ScheduleRun]
elif apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin

    _ScheduleAdmin = _RunAdmin = ModelAdmin
else:
    _ScheduleAdmin = _RunAdmin = admin.ModelAdmin


@admin.register(AgentSchedule)
class AgentScheduleAdmin(_ScheduleAdmin):
    """Schedules, as their operator sees them."""

    form = AgentScheduleForm
    list_display = ("name", "task", "times", "state", "next_run_at", "last_run_at", "total_run_count", "origin")
    list_filter = ("enabled", "origin", "task")
    list_select_related = TIMERS
    search_fields = ("name", "task", "description")
    actions = ("run_selected_now", "enable_selected", "disable_selected")
    readonly_fields = ("state", "upcoming_runs", "last_run_at", "total_run_count", "runs_link", "declared")
    fieldsets = (
        (None, {"fields": ("name", "description", "enabled", "state", "declared")}),
        ("What", {"fields": ("task", "context", "metadata", "priority", "queue")}),
        (
            "When",
            {
                "fields": (*TIMERS, "timezone", "start_at", "expires_at", "repeat", "misfire"),
                "description": "Choose one of crontab, interval, clocked and solar.",
            },
        ),
        ("Runs", {"fields": ("upcoming_runs", "last_run_at", "total_run_count", "runs_link")}),
    )

    def has_run_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run schedules now."""
        return request.user.has_perm(f"{self.opts.app_label}.run_{self.opts.model_name}")

    def get_deleted_objects(
        self, objs: QuerySet[AgentSchedule] | Sequence[AgentSchedule], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[str]]:
        """Let a schedule's history go with it: nobody has a permission to delete runs alone."""
        objects, counts, needed, protected = super().get_deleted_objects(objs, request)
        return objects, counts, needed - {str(ScheduleRun._meta.verbose_name)}, protected

    # What is shown

    @admin.display(description="due")
    def times(self, schedule: AgentSchedule) -> str:
        """When it is due, in words."""
        return str(schedule.timer)

    @admin.display(description="state")
    def state(self, schedule: AgentSchedule) -> str:
        """How it stands; an error is told in full."""
        if schedule.last_error:
            return f"error: {schedule.last_error}"
        if not schedule.enabled:
            return "disabled"
        if schedule._state.adding:
            return "new"
        return "active" if schedule.next_run_at else "over: no due time is left"

    @admin.display(description="next runs")
    def upcoming_runs(self, schedule: AgentSchedule) -> str:
        """The next five due times, in the schedule's time zone."""
        if schedule._state.adding:
            return "shown once it is saved"
        try:
            times = schedule.upcoming(UPCOMING)
        except ScheduleError as error:
            return str(error)
        if not times:
            return "none"
        return format_html_join(
            SafeString("<br>"), "{} {}", ((date_format(t, "D, d M Y H:i:s"), t.tzname()) for t in times)
        )

    @admin.display(description="history")
    def runs_link(self, schedule: AgentSchedule) -> str:
        """A link to what became of its due times."""
        if schedule._state.adding:
            return "none"
        opts = ScheduleRun._meta
        url = reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_changelist")
        return format_html('<a href="{}?schedule__id__exact={}">Runs and their activities</a>', url, schedule.pk)

    @admin.display(description="made in")
    def declared(self, schedule: AgentSchedule) -> str:
        """Where it comes from, and how long edits last."""
        if schedule.origin == Origin.ADMIN:
            return "the admin"
        if not schedule.digest:
            return "the code, which has it no more"
        return "the code: what you edit here lasts until its definition in the code changes"

    # What can be done

    @admin.action(description="Run selected schedules now", permissions=["run"])
    def run_selected_now(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Enqueue the task of each, besides its due times."""
        for schedule in queryset:
            try:
                handle = run_now(schedule)
            except AgentExecError as error:
                self.message_user(request, f"Schedule {schedule} cannot run: {error}", messages.ERROR)
                continue
            self.log_change(request, schedule, f"Run by hand: activity {handle.agent_id}.")
            link = _activity_link(handle.agent_id, self.admin_site)
            self.message_user(request, format_html("Schedule {} runs now: activity {}.", schedule, link))

    @admin.action(description="Enable selected schedules", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Have each run from its next due time on."""
        self._switch(request, queryset, enabled=True)

    @admin.action(description="Disable selected schedules", permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[AgentSchedule]) -> None:
        """Have none of them run any more."""
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[AgentSchedule], *, enabled: bool) -> None:
        switched = 0
        for schedule in queryset.filter(enabled=not enabled):
            schedule.enabled = enabled
            try:
                schedule.save()
            except ScheduleError as error:
                self.message_user(request, f"Schedule {schedule} cannot be switched: {error}", messages.ERROR)
                continue
            self.log_change(request, schedule, "Enabled." if enabled else "Disabled.")
            switched += 1
        self.message_user(request, f"{switched} {'enabled' if enabled else 'disabled'}.")


@admin.register(ScheduleRun)
class ScheduleRunAdmin(_RunAdmin):
    """What became of each due time; only to look at."""

    list_display = ("due_at", "schedule", "kind", "activity_link", "status", "delay", "error")
    list_display_links = None
    list_filter = ("kind", "schedule")
    list_select_related = ("schedule", "activity")
    date_hierarchy = "due_at"
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduleRun]:
        """Leave out what a list does not show of an activity."""
        return super().get_queryset(request).only(
            "due_at", "kind", "error", "created_at", "schedule__name", "activity__status"
        )  # fmt: skip

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Runs are written by the scheduler."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: ScheduleRun | None = None) -> bool:
        """What was is not changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ScheduleRun | None = None) -> bool:
        """The history is cut by the scheduler, and goes with its schedule."""
        return False

    @admin.display(description="activity")
    def activity_link(self, run: ScheduleRun) -> str:
        """A link to the activity."""
        return _activity_link(run.activity_id, self.admin_site) if run.activity_id else "-"

    @admin.display(description="status")
    def status(self, run: ScheduleRun) -> str:
        """How the activity stands."""
        return run.activity.status if run.activity else "-"

    @admin.display(description="late by")
    def delay(self, run: ScheduleRun) -> str:
        """The time from its due time to its enqueue."""
        return f"{(run.created_at - run.due_at).total_seconds():.1f} s"


def _activity_link(agent_id: object, site: admin.AdminSite) -> str:
    opts = Activity._meta
    try:
        url = reverse(f"{site.name}:{opts.app_label}_{opts.model_name}_change", args=[agent_id])
    except NoReverseMatch:
        return str(agent_id)
    return format_html('<a href="{}">{}</a>', url, agent_id)
