"""The usage of an activity with its children, and the children of these."""

from __future__ import annotations

from uuid import UUID

from django.db import connections

from ..models import Activity, ActivityQuerySet, AgentCall, CallQuerySet
from .usage import UsageGroupSchema, UsageSchema, models_of, usage_of

MAX_TREE = 10_000  # activities


def tree_ids(agent_id: UUID, using: str) -> list[UUID]:
    """Return the id of an activity and those of all activities below it, at most `MAX_TREE`; one query."""
    connection, meta = connections[using], Activity._meta
    table, key = connection.ops.quote_name(meta.db_table), connection.ops.quote_name(str(meta.pk.column))
    field = meta.pk
    sql = (
        f"WITH RECURSIVE tree(id) AS (SELECT {key} FROM {table} WHERE {key} = %s "
        f"UNION SELECT child.{key} FROM {table} child JOIN tree ON child.parent_id = tree.id) "
        f"SELECT id FROM tree LIMIT {MAX_TREE}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [field.get_db_prep_value(agent_id, connection)])
        return [field.to_python(row[0]) for row in cursor.fetchall()]


def tree_calls(agent_id: UUID, activities: ActivityQuerySet) -> CallQuerySet:
    """Return the billed calls of an activity and of those below it that are among `activities`; one query."""
    visible = activities.filter(pk__in=tree_ids(agent_id, activities.db)).order_by().values("pk")
    return AgentCall.objects.using(activities.db).billed().filter(activity__in=visible)


def tree_usage(agent_id: UUID, activities: ActivityQuerySet) -> tuple[UsageSchema, list[UsageGroupSchema]]:
    """Return the usage of an activity and of those below it that are among `activities`, in total and by model.

    All attempts are included. Three queries.
    """
    calls = tree_calls(agent_id, activities)
    return usage_of(calls), models_of(calls)
