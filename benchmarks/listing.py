"""The queries of the REST list over a million rows; measured by `scenarios.py`."""

from __future__ import annotations

import json
import statistics
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from django_agentexec.api.filters import searched
from django_agentexec.conf import conf
from django_agentexec.models import Activity

Figures = dict[str, float]


def list_million(rows: int = 1_000_000, samples: int = 9) -> Figures:
    """Milliseconds in PostgreSQL with 1,000,000 rows: the first page of the REST list and its count, by filter."""
    if connection.vendor != "postgresql":
        return {}
    _fill(rows)
    asked = {
        "all": Activity.objects.all().active_first(),
        "errors": Activity.objects.filter(status="error").order_by("-agent_id"),
        "task": Activity.objects.of_type("task-7").active_first(),
        "tenant": Activity.objects.all().for_metadata(organization_id="org-7").active_first(),
        "search_without_hit": searched(Activity.objects.all(), "nowhere").active_first(),
        "last_week": Activity.objects.filter(created_at__gte=timezone.now() - timedelta(days=7)).active_first(),
        "small_tenant": Activity.objects.all().for_metadata(organization_id="small").active_first(),
    }
    figures: Figures = {}
    for name, wanted in asked.items():
        page = wanted.without_payloads()[:50]
        read_counters = wanted.order_by().values("agent_id")[: conf.COUNT_LIMIT + 1]
        figures[f"{name}_page_ms"] = statistics.median(_time_in_database(page) for _ in range(samples))
        figures[f"{name}_count_ms"] = statistics.median(_time_in_database(read_counters) for _ in range(samples))
    return figures


# The values that vary by row: 1 % active, 5 % in error, 50 tasks, 100 tenants, and a tenant with ten activities.
_VARYING = {
    "agent_id": "(lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid",
    "status": "CASE WHEN n * 7 %% 100 = 0 THEN 'queued' WHEN n * 7 %% 100 < 6 THEN 'error' ELSE 'complete' END",
    "agent_type": "'task-' || n %% 50",
    "metadata": "jsonb_build_object('organization_id',"
    " CASE WHEN n %% 100000 = 0 THEN 'small' ELSE 'org-' || n %% 100 END)",
}


def _fill(rows: int) -> None:
    """Insert copies of an activity that differ in some columns."""
    model = Activity(queue="default", context={"text": "x" * 200}, latest_log_message="Task completed successfully.")
    model.save()
    columns = [str(field.column) for field in Activity._meta.concrete_fields]
    values = [_VARYING.get(column, column) for column in columns]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO agentexec_activity ({', '.join(columns)}) SELECT {', '.join(values)}"
            " FROM agentexec_activity, generate_series(1, %s) n WHERE agent_id = %s",
            [rows, model.agent_id],
        )
        cursor.execute("VACUUM ANALYZE agentexec_activity")


def _time_in_database(queryset: QuerySet[Any, Any]) -> float:
    """Return the execution time of a query in milliseconds, as reported by PostgreSQL."""
    (plan,) = json.loads(queryset.explain(format="json", analyze=True))
    return float(plan["Execution Time"]) + float(plan["Planning Time"])
