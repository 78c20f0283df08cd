"""The form of a schedule in the admin: tasks to choose from, and an editor for their context."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms

from ..tasks import registry
from .examples import example_of, schema_of
from .models import TIMERS, AgentSchedule

EDITABLE = (
    "name", "description", "enabled", "task", "context", "metadata", "priority", "queue", *TIMERS, "timezone",
    "start_at", "expires_at", "repeat", "misfire",
)  # fmt: skip

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[AgentSchedule]
else:
    _ModelForm = forms.ModelForm


class JSONObjectField(forms.JSONField):
    """JSON, shown with line breaks; left empty, it is an empty object."""

    def clean(self, value: Any) -> Any:
        """Return the value, or {} for nothing."""
        cleaned = super().clean(value)
        return {} if cleaned is None else cleaned

    def prepare_value(self, value: Any) -> Any:
        """Return readable JSON; what was entered comes back as it was."""
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class ContextWidget(forms.Textarea):
    """A text area that shows beside it what the chosen task takes: the JSON schema and an example.

    With scripts it follows the choice of the task; without, it shows the task that was chosen when the page was made.
    """

    template_name = "agentexec_schedules/context_widget.html"

    class Media:
        js = ("agentexec_schedules/context.js",)

    task = ""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Add the schemas and examples of all tasks, by name."""
        context: dict[str, Any] = super().get_context(name, value, attrs)
        context["tasks"] = tasks = {definition.name: _described(schema_of(definition)) for definition in registry}
        context["chosen"] = tasks.get(self.task)
        return context


class AgentScheduleForm(_ModelForm):
    """Everything that an operator may say of a schedule."""

    task = forms.ChoiceField(help_text="What is enqueued at each due time.")
    timezone = forms.ChoiceField(
        label="Time zone", required=False, help_text="Of the crontab. Empty: the crontab's own."
    )
    context = JSONObjectField(required=False, widget=ContextWidget(attrs={"rows": 10, "cols": 80}))
    metadata = JSONObjectField(
        required=False, widget=forms.Textarea(attrs={"rows": 3, "cols": 80}), help_text="Of each activity."
    )

    class Meta:
        model = AgentSchedule
        fields = EDITABLE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" not in self.fields:
            return  # only to look at
        current = self.instance.task
        names = sorted({definition.name for definition in registry} | ({current} if current else set()))
        self.fields["task"].choices = [("", "---------"), *((name, name) for name in names)]  # type: ignore[attr-defined]  # a ChoiceField
        zones = sorted(available_timezones() | ({self.instance.timezone} - {""}))
        self.fields["timezone"].choices = [("", "---------"), *((zone, zone) for zone in zones)]  # type: ignore[attr-defined]
        widget = self.fields["context"].widget
        assert isinstance(widget, ContextWidget)
        widget.task = str(self["task"].value() or "")


def _described(schema: dict[str, Any]) -> dict[str, str]:
    return {
        "schema": json.dumps(schema, indent=2, ensure_ascii=False),
        "example": json.dumps(example_of(schema), indent=2, ensure_ascii=False),
    }
