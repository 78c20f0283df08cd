"""Tasks over REST: the tasks with `api=True`, their enqueue, and its `Idempotency-Key`."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pydantic
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel
from rest_framework.exceptions import NotFound, ParseError, PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from ..activity import acting_as
from ..exceptions import UnknownTask
from ..models import Activity, Priority
from ..policy import get_policy
from ..tasks import AnyTask, Run, registry
from ..tasks.authorization import check_authorized
from ..tasks.context_input import closed_schema, read_context
from ..tasks.options import validate_conversation
from .base import AgentView
from .bodies import JsonTextParser
from .conversations import conversation_for_turn
from .errors import RETRY_AFTER, KeyReused, invalid_parameter, validation_error
from .openapi import AgentSchema, Component, header, operation, query_parameters
from .parameters import PRIORITIES, EnqueueOptions, NoParameters, metadata_of
from .permissions import MayEnqueue
from .schemas import EnqueuedSchema, TaskSchema

logger = logging.getLogger(__name__)

IDEMPOTENCY_HEADER = "Idempotency-Key"
MAX_IDEMPOTENCY_KEY = 255  # characters
_DIGEST_LENGTH = 64  # hexadecimal digits


def exposed_tasks() -> list[AnyTask]:
    """Return the tasks with `api=True`, by name."""
    return sorted((task for task in registry if task.api), key=lambda task: task.name)


def exposed_task(name: str) -> AnyTask:
    """Return the task of this name; raise 404 for a task without `api=True`."""
    try:
        task = registry.get(name)
    except UnknownTask:
        task = None
    if task is None or not task.api:
        raise NotFound(_("There is no task %(task)r that can be enqueued over REST.") % {"task": name})
    return task


class TaskListView(AgentView):
    """The list of tasks."""

    permission_classes = [MayEnqueue]

    @operation("list_tasks", {200: list[TaskSchema]}, errors=[400])
    def get(self, request: Request) -> Response:
        """List the tasks that can be enqueued over REST, each with the JSON schema of its context."""
        NoParameters.read(request)
        return Response([self._describe(task).model_dump(mode="json") for task in exposed_tasks()])

    def _describe(self, task: AnyTask) -> TaskSchema:
        return TaskSchema(
            name=task.name,
            description=description_of(task),
            enqueue_url=self.url("task-enqueue", name=task.name),
            context=closed_schema(task.context_type.model_json_schema()),
        )


class EnqueueSchema(AgentSchema):
    """The schema of the enqueue of one task, or of any task where the path has a parameter."""

    @property
    def task(self) -> AnyTask | None:
        """The task of a path such as `/agents/tasks/research/`."""
        name = self.path.rpartition("/tasks/")[2].strip("/")
        return None if name == "{name}" else exposed_task(unquote(name))

    def get_operation_id(self) -> str:
        """Return a name per task."""
        return f"enqueue_{self.task.name}" if self.task else "enqueue_task"

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular declares it
        """Return the description of the task, followed by the general description."""
        general = super().get_description()
        return f"{description_of(self.task)}\n\n{general}".strip() if self.task else general

    def get_request_serializer(self) -> Any:
        """Return the context of the task, or of any task."""
        if self.task:
            return context_component(self.task)
        contexts = [self.component(context_component(task)) for task in exposed_tasks()]
        return {JsonTextParser.media_type: {"anyOf": contexts} if contexts else {"type": "object"}}

    def get_override_parameters(self) -> list[Any]:
        """Add the parameter with the names of the tasks, where the path has one."""
        parameters = super().get_override_parameters()
        if self.task:
            return parameters
        names = [task.name for task in exposed_tasks()]
        kind: dict[str, Any] = {"type": "string", "enum": names} if names else {"type": "string"}
        return [*parameters, OpenApiParameter("name", kind, OpenApiParameter.PATH)]


def _enqueue_parameters() -> list[OpenApiParameter]:
    key = {"type": "string", "minLength": 1, "maxLength": MAX_IDEMPOTENCY_KEY, "pattern": "^[!-~]+$"}
    return [
        *query_parameters(EnqueueOptions),
        OpenApiParameter(
            IDEMPOTENCY_HEADER,
            key,
            OpenApiParameter.HEADER,
            description="A repeated request with the same key returns the activity of the first request.",
        ),
    ]


class EnqueueView(AgentView):
    """The enqueue of a task."""

    permission_classes = [MayEnqueue]
    parser_classes = [JsonTextParser]
    schema = EnqueueSchema()

    @operation(
        "enqueue_task",
        {202: EnqueuedSchema},
        errors=[400, 404, 413, 415, 422],
        parameters=_enqueue_parameters,
        headers=[
            header("Location", str, 202, "The path of the activity, for polling."),
            header("Retry-After", int, 202, "Seconds until the first poll."),
        ],
    )
    def post(self, request: Request, name: str) -> Response:
        """Enqueue the task with the body as its context, and return at once.

        Parameters of the form `metadata.<key>=<value>` add metadata; they require the monitor permission.
        """
        options = EnqueueOptions.read(request, allow_metadata=True)
        task, stamp = exposed_task(name), get_policy().stamp(request.user)
        priority, metadata = self._priority(task, options.priority), self._metadata()
        parsed: Any = request.data
        body: bytes = parsed.get("json", b"{}")  # without a body, the context is empty
        context = parse_context(task, body)
        check_authorized(task, request.user, context, {**metadata, **stamp})
        key = idempotency_key(request, task.name, stamp, body)
        conversation = None
        if options.conversation is not None:
            validate_conversation(task, options.conversation)
            conversation = conversation_for_turn(request.user, options.conversation, {**metadata, **stamp})
        with acting_as(request.user):
            handle = task.enqueue(
                context,
                priority=priority,
                delay=options.delay,
                metadata={**metadata, **stamp},
                idempotency_key=key,
                conversation=conversation,
            )
        return self._accepted(handle)

    def _accepted(self, handle: Run) -> Response:
        url = self.url("activity-detail", agent_id=handle.agent_id)
        status = "queued"
        if not handle.created:
            status = Activity.objects.values_list("status", flat=True).get(agent_id=handle.agent_id)
        shape = EnqueuedSchema.model_validate({"agent_id": handle.agent_id, "status": status, "status_url": url})
        return Response(
            shape.model_dump(mode="json"), status=202, headers={"Location": url, "Retry-After": str(RETRY_AFTER)}
        )

    def _priority(self, task: AnyTask, name: str | None) -> Priority | None:
        if name is None:
            return None
        priority = PRIORITIES[name]
        if priority < task.priority and not self.monitors:
            text = _("Priority %(priority)r is above the priority of the task; it requires the monitor permission.")
            raise PermissionDenied(text % {"priority": name})
        return priority

    def _metadata(self) -> dict[str, str]:
        given = metadata_of(self.request)
        if given and not self.monitors:
            raise PermissionDenied(_("Metadata requires the monitor permission."))
        return {key: values[-1] for key, values in given.items()}


def context_component(task: AnyTask) -> Component:
    """Return the context of the task as a component with the name of the task."""
    # Component names allow ASCII letters, digits and few other characters.
    parts = [char if char.isascii() and (char.isalnum() or char == "_") else f"-{ord(char):x}-" for char in task.name]
    return Component(task.context_type, f"{''.join(parts)}_context", "validation")


def description_of(task: AnyTask) -> str:
    """Return the docstring of the task's function."""
    return inspect.cleandoc(task.__doc__ or "")


def parse_context(task: AnyTask, body: bytes) -> BaseModel:
    """Return the context of the body; raise 400. Strict, as the published schema: "5" is not a number.

    Pydantic and the validators of a model also raise other exceptions, such as `OverflowError` for a duration.
    """
    try:
        return read_context(task, body, strict=True)
    except pydantic.ValidationError as error:
        raise validation_error(error) from error
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        logger.warning("The context of task %r cannot be read.", task.name, exc_info=True)
        text = _("The context of task %(task)r cannot be read: %(error)s")
        raise ParseError(text % {"task": task.name, "error": type(error).__name__}) from error


def idempotency_key(request: Request, task: str, stamp: Mapping[str, Any], body: bytes) -> str | None:
    """Return the idempotency key for `enqueue`, or None without the header. `body` is valid JSON. One query.

    The key consists of two digests: of header, user and tenant, then of body and query. So equal keys of two users
    are independent, and a key that is used with a different request is detected, as long as the first activity is
    stored. Raises 400 for an impossible key, and 422 for a key of a different request.
    """
    given = request.headers.get(IDEMPOTENCY_HEADER)
    if given is None:
        return None
    if not (1 <= len(given) <= MAX_IDEMPOTENCY_KEY and given.isascii() and given.isprintable()):
        text = _("%(key)r: give 1 to %(maximum)s printable ASCII characters.")
        raise invalid_parameter(IDEMPOTENCY_HEADER, text % {"key": given[:80], "maximum": MAX_IDEMPOTENCY_KEY})
    caller = _digest([str(request.user.pk), dict(stamp), given])
    key = caller + _digest([json.loads(body), request.query_params.urlencode()])
    # A range uses the index in every collation; a prefix condition does not.
    first, last = caller + "0" * _DIGEST_LENGTH, caller + "f" * _DIGEST_LENGTH
    known = Activity.objects.filter(agent_type=task, idempotency_key__gte=first, idempotency_key__lte=last)
    if any(other != key for other in known.values_list("idempotency_key", flat=True)[:1]):
        raise KeyReused
    return key


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
