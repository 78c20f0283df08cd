"""Copies of finished activities: new activities with the same context, or with a changed context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from .. import activity as activities
from ..exceptions import InvalidContext, InvalidOption, NotAuthorized, UnknownTask
from ..models import Activity
from ..policy import Permission, get_policy
from ..tasks.authorization import check_authorized
from ..tasks.context_input import field_problems, read_context
from ..tasks.definition import AnyTask
from ..tasks.registry import registry
from .access import AccessAdmin
from .formatting import pretty_json
from .status import short_id

MAX_CONTEXT = 200_000  # characters of a context that the form offers for change


@dataclass(frozen=True)
class FieldError:
    """An error of the form, at a field of the context or, without a name, at the whole."""

    field: str
    message: str


class CopyPages(AccessAdmin):
    """The page `<id>/copy/`."""

    def get_urls(self) -> list[URLPattern]:
        """Add the page."""
        view = self.admin_site.admin_view(self.copy_page)
        own = path("<path:object_id>/copy/", view, name="agentexec_activity_copy")
        return [own, *super().get_urls()]

    def has_copy_permission(self, request: HttpRequest, obj: Activity) -> bool:
        """Return whether the user may enqueue the activity's task.

        That needs the permission `enqueue_task` and the policy's consent; users who may not monitor can run only tasks
        that are open to the REST API (`@task(api=True)`).
        """
        return may_copy(request, obj, monitors=self.has_monitor_permission(request))

    def copy_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for the context of the copy, and enqueue it."""
        original = self.get_object(request, unquote(object_id))
        if original is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined,no-any-return]  # Django's own, unknown to the stubs
        task = task_of(original)
        if task is None or original.is_active or not self.has_copy_permission(request, original):
            raise PermissionDenied
        is_unchanged = "unchanged" in request.GET
        text, errors = pretty_json(original.context), list[FieldError]()
        if request.method == "POST":
            text = text if is_unchanged else request.POST.get("context", "")
            handle = self._enqueue(request, task, original, text, errors)
            if handle is not None:
                return HttpResponseRedirect(handle)
        return self._ask_context(request, task, original, text, errors, is_unchanged=is_unchanged)

    def _enqueue(
        self,
        request: HttpRequest,
        task: AnyTask,
        original: Activity,
        text: str,
        errors: list[FieldError],
    ) -> str | None:
        """Enqueue the copy and return the address of its page; or add to `errors`."""
        try:
            context = read_context(task, text)
        except pydantic.ValidationError as error:
            errors.extend(_field_errors(error))
            return None
        except Exception as error:  # noqa: BLE001  # a model's own validators may raise anything
            errors.append(FieldError("", str(error)))
            return None
        metadata: Mapping[str, Any] = {**(original.metadata or {}), **get_policy().stamp(request.user)}
        try:
            check_authorized(task, request.user, context, metadata)
            with activities.acting_as(request.user):
                handle = task.enqueue(
                    context, metadata=metadata, priority=original.priority, queue=original.queue or None
                )
        except (NotAuthorized, InvalidContext, InvalidOption) as refusal:
            errors.append(FieldError("", str(refusal)))
            return None
        copy = Activity.objects.without_payloads().get(pk=handle.agent_id)
        self.log_addition(request, copy, _("Copy of %(id)s.") % {"id": original.agent_id})
        self.message_user(request, _("The copy was queued."), messages.SUCCESS)
        return reverse(f"{self.admin_site.name}:agentexec_activity_change", args=[handle.agent_id])

    def _ask_context(
        self,
        request: HttpRequest,
        task: AnyTask,
        original: Activity,
        text: str,
        errors: Sequence[FieldError],
        *,
        is_unchanged: bool,
    ) -> TemplateResponse:
        title = _("Run again") if is_unchanged else _("Run a copy with changed context")
        return self.render_page(
            request,
            "copy.html",
            {
                "title": title,
                "original": original,
                "short_id": short_id(original),
                "context_type": task.context_type.__name__,
                "fields": _fields(task),
                "text": text,
                "is_too_long": len(text) > MAX_CONTEXT,
                "is_unchanged": is_unchanged,
                "errors": errors,
            },
            status=400 if errors else 200,
        )


def may_copy(request: HttpRequest, obj: Activity, *, monitors: bool) -> bool:
    """Return whether the user may enqueue the task of an activity; `monitors` is whether the user may monitor."""
    user = request.user
    if not user.has_perm(f"{Activity._meta.app_label}.{Permission.ENQUEUE}"):
        return False
    if not get_policy().may(user, Permission.ENQUEUE, obj):
        return False
    task = task_of(obj)
    return task is not None and (task.api or monitors)


def task_of(activity: Activity) -> AnyTask | None:
    """Return the task of an activity, or None if it is not registered any more, or not run through a queue."""
    if not activity.queue:
        return None
    try:
        return registry.get(activity.agent_type)
    except UnknownTask:
        return None


def _fields(task: AnyTask) -> list[tuple[str, str, bool]]:
    """Return the name, the type or description, and whether it is required, of each field of the context."""
    schema = task.context_type.model_json_schema()
    required = schema.get("required", [])
    return [
        (name, str(one.get("description") or one.get("type") or ""), name in required)
        for name, one in schema.get("properties", {}).items()
    ]


def _field_errors(error: pydantic.ValidationError) -> list[FieldError]:
    """Return the errors of a context by field; values are not repeated, since they may be secrets."""
    found = []
    for problem in field_problems(error):
        name = problem.path
        match problem.code:
            case "missing":
                text = _("is missing.")
            case "extra_forbidden":
                text = _("is not a field of this task.")
            case "json_invalid":
                name, text = (
                    "",
                    _("This is not valid JSON: %(reason)s") % {"reason": problem.message.partition(": ")[2]},
                )
            case _other:
                text = problem.message
        found.append(FieldError(name, text))
    return found
