"""The public functions for activities, and the only writer of their rows.

    from django_agentexec import activity

    activity.update(agent_id, "Reading page 3 of 10", percentage=30)
    await activity.aupdate(agent_id, "Reading page 4 of 10", percentage=40)

Each function `x` has an async version `ax`, except `stream` and `retract_stream`, which never wait. Inside a handler a
write carries the attempt's fence and joins the worker's group commit; anywhere else it is one transaction, or part of
the caller's transaction.
"""

from ..current import acting_as
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
from .forking import afork, fork
from .pruning import aprune, prune
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
    "afork",
    "alist",
    "aprune",
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
    "fork",
    "list",
    "prune",
    "retract_stream",
    "retry",
    "stream",
    "update",
]
