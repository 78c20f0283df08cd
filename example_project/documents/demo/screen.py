"""The demo's output: live progress (a table on a terminal, else a line for each change), and a summary."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.core.management.base import OutputWrapper

from django_agentexec.models import Activity, Status
from example_project.documents.schemas import reservations

BAR_WIDTH = 20
SUBJECT_WIDTH = 40
COLORS = {Status.COMPLETE: 32, Status.ERROR: 31, Status.CANCELED: 33, Status.RUNNING: 36}


class Screen:
    """Screen that writes to `out`. `subjects` has the document of each activity."""

    def __init__(self, out: OutputWrapper, subjects: Mapping[UUID, str]) -> None:
        self.out = out
        self.subjects = subjects
        self.is_terminal = out.isatty()
        self._shown: dict[UUID, str] = {}
        self._height = 0

    def show(self, activities: Sequence[Activity]) -> None:
        """Update the display."""
        if self.is_terminal:
            self._redraw(activities)
        else:
            self._print_changes(activities)
        self.out.flush()

    def _redraw(self, activities: Sequence[Activity]) -> None:
        width = shutil.get_terminal_size().columns
        text = f"\x1b[{self._height}F" if self._height else ""  # back to the first line
        for activity in activities:
            line = self._line(activity)[: width - 1]
            color = COLORS.get(Status(activity.status), 0)
            text += f"\x1b[{color}m{line}\x1b[0m\x1b[K\n"
        self.out.write(text)
        self._height = len(activities)

    def _line(self, activity: Activity) -> str:
        done = BAR_WIDTH * activity.percentage // 100
        bar = "█" * done + "░" * (BAR_WIDTH - done)
        message = activity.latest_log_message.partition("\n")[0]
        subject = self.subjects[activity.agent_id]
        return f"{subject:<{SUBJECT_WIDTH}} {activity.status:<8} {bar} {activity.percentage:>3}%  {message}"

    def _print_changes(self, activities: Sequence[Activity]) -> None:
        for activity in activities:
            state = f"{activity.status:<8} {activity.percentage:>3}%  {activity.latest_log_message}"
            if self._shown.get(activity.agent_id) != state:
                self._shown[activity.agent_id] = state
                self.out.write(f"{self.subjects[activity.agent_id]:<{SUBJECT_WIDTH}} {state}\n")

    def summarize(self, activities: Sequence[Activity]) -> None:
        """Print a table of the final states and the results."""
        self.out.write(f"\n{'document':<{SUBJECT_WIDTH}} {'status':<9} {'seconds':>7} {'tokens':>7} {'cost':>8}\n")
        for activity in activities:
            subject = self.subjects[activity.agent_id]
            tokens = activity.usage.get("total_tokens", 0)
            cost = "-" if activity.cost is None else f"${activity.cost:.4f}"
            self.out.write(
                f"{subject:<{SUBJECT_WIDTH}} {activity.status:<9} {_seconds(activity):>7} {tokens:>7,} {cost:>8}\n"
                f"    {_headline(activity)}\n"
            )
            for reservation in reservations(activity.result):
                self.out.write(f"    ! {reservation}\n")
        self.out.flush()


def _seconds(activity: Activity) -> str:
    if activity.started_at is None or activity.finished_at is None:
        return "-"
    return f"{(activity.finished_at - activity.started_at).total_seconds():.1f}"


def _headline(activity: Activity) -> str:
    if isinstance(activity.result, dict):
        return str(activity.result.get("headline", ""))
    return activity.error or activity.latest_log_message
