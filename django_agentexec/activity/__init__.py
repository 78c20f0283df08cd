"""The life of an activity, and the only writer of its rows.

    from django_agentexec import activity

    activity.update(agent_id, "Reading page 3 of 10", percentage=30)
    await activity.aupdate(agent_id, "Reading page 4 of 10", percentage=40)

Each verb has a sync and an `a...` form, but for `stream`, which never waits. Inside a handler the write carries
the attempt's fence and joins the worker's group commit; anywhere else it is one transaction (or part of
the caller's).
"""

from .actor import acting_as
from .bulk import BulkOutcome, acancel_many, acancel_pending, aretry_many, cancel_many, cancel_pending, retry_many
from .commands import (
    aadd_usage,
    acancel,
    acomplete,
    acreate,
    add_usage,
    aerror,
    aretry,
    aupdate,
    cancel,
    complete,
    create,
    error,
    retry,
    update,
)
from .pruning import prune
from .queries import acount_active, adetail, alist, count_active, detail, list
from .streams import aflush_stream, flush_stream, retract_stream, stream

__all__ = [
    "BulkOutcome",
    "acancel_many",
    "aretry_many",
    "cancel_many",
    "retry_many",
    "aadd_usage",
    "acancel",
    "acancel_pending",
    "acting_as",
    "acomplete",
    "acount_active",
    "acreate",
    "add_usage",
    "adetail",
    "aerror",
    "aflush_stream",
    "alist",
    "aretry",
    "aupdate",
    "cancel",
    "cancel_pending",
    "complete",
    "count_active",
    "create",
    "detail",
    "error",
    "flush_stream",
    "list",
    "prune",
    "retract_stream",
    "retry",
    "stream",
    "update",
]
