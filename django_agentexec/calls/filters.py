"""Conditions on activities by their recorded calls."""

from __future__ import annotations

from django.db.models import Exists, OuterRef

from ..models import ActivityQuerySet, AgentCall, CallKind


def with_call(activities: ActivityQuerySet, kind: CallKind, name: str) -> ActivityQuerySet:
    """Return the activities that have called this model or tool. Uses the index of calls by name and activity."""
    calls = AgentCall.objects.using(activities.db).filter(activity_id=OuterRef("pk"), name=name, kind=kind)
    return activities.filter(Exists(calls.order_by()))
