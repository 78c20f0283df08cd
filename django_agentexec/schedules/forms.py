"""The admin form of a schedule: a choice of tasks, and an editor for the context with its JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from ..tasks import AnyTask, registry
from .models import AgentSchedule
from .timing import TIMERS

EDITABLE = (
    "name", "description", "enabled", "task", "context", "metadata", "priority", "queue", *TIMERS, "timezone",
    "start_at", "expires_at", "repeat", "misfire",
)  # fmt: skip
NO_CHOICE = ("", "---------")

MAX_DEPTH = 5  # levels of an example; a type may contain itself
BLANKS: Mapping[str, Any] = {
    "string": "", "integer": 0, "number": 0.0, "boolean": False, "array": [], "object": {}, "null": None,
}  # fmt: skip

Schema = dict[str, Any]

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[AgentSchedule]
else:
    _ModelForm = forms.ModelForm


def schema_of(definition: AnyTask) -> Schema:
    """Return the JSON schema of a task's context, with the stored field names."""
    context_type: type[BaseModel] = definition.context_type
    return context_type.model_json_schema(by_alias=False)


def example_of(schema: Schema) -> Any:
    """Return an example value for a JSON schema: its defaults and examples if present, otherwise blank values."""
    return _example(schema, schema.get("$defs", {}), MAX_DEPTH)


def _example(schema: Schema, definitions: Schema, depth: int) -> Any:
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema and depth:
        return _example(definitions.get(schema["$ref"].rsplit("/", 1)[-1], {}), definitions, depth - 1)
    for kind in ("anyOf", "oneOf", "allOf"):
        if schema.get(kind):
            return _example(schema[kind][0], definitions, depth)
    if "properties" in schema and depth:
        return {name: _example(value, definitions, depth - 1) for name, value in schema["properties"].items()}
    return BLANKS.get(schema.get("type", "null"))


class JSONObjectField(forms.JSONField):
    """A JSON field with line breaks; an empty value is an empty object."""

    def clean(self, value: Any) -> Any:
        """Return the value, or {} for an empty value."""
        cleaned = super().clean(value)
        return {} if cleaned is None else cleaned

    def prepare_value(self, value: Any) -> Any:
        """Return indented JSON; submitted text is returned unchanged."""
        return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class ContextWidget(forms.Textarea):
    """A text area with the JSON schema and an example of the selected task's context.

    With JavaScript it follows the selection of the task; otherwise it shows the task selected on page load.
    """

    template_name = "agentexec_schedules/context_widget.html"

    class Media:
        js = ("agentexec_schedules/context.js",)

    task = ""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        """Add the schemas and examples of all tasks by name."""
        context: dict[str, Any] = super().get_context(name, value, attrs)
        context["tasks"] = tasks = {definition.name: _help_for(schema_of(definition)) for definition in registry}
        context["chosen"] = tasks.get(self.task)
        return context


class AgentScheduleForm(_ModelForm):
    """The editable fields of a schedule."""

    task = forms.ChoiceField(label=_("Task"), help_text=_("The task that is enqueued at each due time."))
    timezone = forms.ChoiceField(
        label=_("Time zone"),
        required=False,
        help_text=_("Applies to the crontab. Empty: the time zone of the crontab."),
    )
    context = JSONObjectField(label=_("Context"), required=False, widget=ContextWidget(attrs={"rows": 10, "cols": 80}))
    metadata = JSONObjectField(
        label=_("Metadata"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 80}),
        help_text=_("Metadata of each activity, a JSON object."),
    )

    class Meta:
        model = AgentSchedule
        fields = EDITABLE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "task" not in self.fields:
            return  # the user may only view the schedule
        current = self.instance.task
        names = sorted({definition.name for definition in registry} | ({current} if current else set()))
        self.fields["task"].choices = [NO_CHOICE, *((name, name) for name in names)]  # type: ignore[attr-defined]  # a ChoiceField
        zones = sorted(available_timezones() | ({self.instance.timezone} - {""}))
        self.fields["timezone"].choices = [NO_CHOICE, *((zone, zone) for zone in zones)]  # type: ignore[attr-defined]
        widget = self.fields["context"].widget
        assert isinstance(widget, ContextWidget)
        widget.task = str(self["task"].value() or "")


def _help_for(schema: Schema) -> dict[str, str]:
    return {
        "schema": json.dumps(schema, indent=2, ensure_ascii=False),
        "example": json.dumps(example_of(schema), indent=2, ensure_ascii=False),
    }
