"""Two read-only pages about the runs. They reload themselves while something is going on.

Open to whoever reaches the server, which in the demo listens on this machine alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet
from django.db.models.fields.json import KT
from django.views.generic import DetailView, ListView

from django_agentexec.models import Activity

from .model import model_choice

if TYPE_CHECKING:  # Django's views are generic for the type checker only
    ActivityList = ListView[Activity]
    ActivityDetail = DetailView[Activity]
else:
    ActivityList, ActivityDetail = ListView, DetailView


def with_titles(runs: QuerySet[Activity]) -> QuerySet[Activity]:
    """Add what the runs of the example's tasks have in common: `document`, and the result's `headline`."""
    return runs.annotate(document=KT("context__document"), headline=KT("result__headline"))


class RunList(ActivityList):
    """The latest runs, active ones first."""

    template_name = "documents/runs.html"
    context_object_name = "runs"
    paginate_by = 50

    def get_queryset(self) -> QuerySet[Activity]:
        """Return the runs without their large columns."""
        return with_titles(Activity.objects.active_first()).defer("context", "result", "traceback")

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the model's description, and whether to reload."""
        has_active = Activity.objects.active().exists()
        return super().get_context_data(model=model_choice(), reload=has_active, **kwargs)


class RunDetail(ActivityDetail):
    """One run: where it stands, its log, and its result."""

    template_name = "documents/run.html"
    context_object_name = "run"
    queryset = with_titles(Activity.objects.all())
    pk_url_kwarg = "agent_id"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the log, the result as readable text, the seconds it took, and whether to reload."""
        run = self.object
        seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None
        result = json.dumps(run.result, indent=2, ensure_ascii=False) if run.result is not None else ""
        return super().get_context_data(
            model=model_choice(),
            reload=run.is_active,
            logs=run.logs.all(),
            result=result,
            seconds=seconds,
            **kwargs,
        )
