"""Pause and resume queues, tasks and tenants. Running activities continue."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import router, transaction

from ..blocking import blocking
from ..choices import PauseScope
from ..current import as_actor, current_actor
from ..exceptions import InvalidOption
from ..models import Activity, Pause
from ..models.concurrency import MAX_PAUSE_NAME
from ..registry import unknown_task_note
from ..translation import gettext as _
from ..validation import QUEUE_NAME, is_storable

MAX_REASON = 500  # characters; the column's size


@blocking
def pause(scope: PauseScope | str, name: str, *, reason: str = "", actor: Any = None) -> bool:
    """Let no waiting activity of a queue, task or tenant start until `resume`; return False if it is paused already.

    `scope` is `queue`, `task` or `tenant`; the name of a tenant is a metadata key and value: `organization_id=7`.
    `actor` is a user or a name, by default that of `activity.acting_as`. Effective in all workers as soon as the
    transaction is committed. Raises `InvalidOption`.
    """
    scope, name = validate_target(scope, name)
    if not isinstance(reason, str) or len(reason) > MAX_REASON or not is_storable(reason):
        text = _("The reason %(reason)s must be text of at most %(maximum)s characters.")
        raise InvalidOption(text % {"reason": f"{reason!r:.80}", "maximum": MAX_REASON})
    found = current_actor() if actor is None else as_actor(actor)
    using = router.db_for_write(Activity)
    with transaction.atomic(using=using):
        _row, created = Pause.objects.using(using).get_or_create(
            scope=scope, name=name, defaults={"reason": reason, "actor": found.name if found else None}
        )
    return created


async def apause(scope: PauseScope | str, name: str, *, reason: str = "", actor: Any = None) -> bool:
    """Async version of `pause`."""
    return await sync_to_async(pause)(scope, name, reason=reason, actor=actor)


@blocking
def resume(scope: PauseScope | str, name: str) -> bool:
    """Let the activities of a paused queue, task or tenant start again; return False if it is not paused.

    Raises `InvalidOption`.
    """
    scope, name = validate_target(scope, name)
    using = router.db_for_write(Activity)
    with transaction.atomic(using=using):
        deleted, _by_model = Pause.objects.using(using).filter(scope=scope, name=name).delete()
    return bool(deleted)


async def aresume(scope: PauseScope | str, name: str) -> bool:
    """Async version of `resume`."""
    return await sync_to_async(resume)(scope, name)


def target_note(scope: PauseScope | str, name: str, *, names_others: bool = True) -> str:
    """Return a remark about a pause that may have no effect, since no task of this process has the name; else ""."""
    return unknown_task_note(name, names_others=names_others) if scope == PauseScope.TASK else ""


def validate_target(scope: PauseScope | str, name: str) -> tuple[PauseScope, str]:
    """Return scope and name of a pause. Raises `InvalidOption`."""
    if scope not in PauseScope.values:
        text = _("The scope %(scope)r is unknown; there are %(scopes)s.")
        raise InvalidOption(text % {"scope": scope, "scopes": ", ".join(PauseScope.values)})
    if name == "":
        raise InvalidOption(_nameless(PauseScope(scope)))
    if not (isinstance(name, str) and 1 <= len(name) <= MAX_PAUSE_NAME and is_storable(name) and name.isprintable()):
        text = _("The name %(name)s must be text of 1 to %(maximum)s printable characters.")
        raise InvalidOption(text % {"name": f"{name!r:.80}", "maximum": MAX_PAUSE_NAME})
    if scope == PauseScope.QUEUE and not QUEUE_NAME.fullmatch(name):
        raise InvalidOption(
            _("%(name)r is not a queue name: use 1 to 100 letters, digits, '_', '.' and '-'.") % {"name": name[:80]}
        )
    key, equals, value = name.partition("=")
    if scope == PauseScope.TENANT and not (key and equals and value):
        text = _("The tenant %(name)s must be a metadata key and its value, such as 'organization_id=7'.")
        raise InvalidOption(text % {"name": f"{name!r:.80}"})
    return PauseScope(scope), name


def _nameless(scope: PauseScope) -> str:
    texts = {
        PauseScope.QUEUE: _("Name the queue, such as default."),
        PauseScope.TASK: _("Name the task, such as research_company."),
        PauseScope.TENANT: _("Name the tenant by its metadata, such as organization_id=7."),
    }
    return texts[scope]
