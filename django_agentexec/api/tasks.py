"""Tasks over REST: which ones may be enqueued from outside, and enqueueing them."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn
from urllib.parse import unquote

import pydantic
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from ..activity import acting_as
from ..conf import conf
from ..exceptions import UnknownTask
from ..models import Activity, Priority
from ..policy import get_policy
from ..tasks import ActivityHandle, TaskDefinition, registry
from ..tasks.authorization import check_authorized
from ..tasks.context_input import closed_schema, read_context
from .base import AgentView
from .errors import RETRY_AFTER, TooLarge, invalid
from .idempotency import HEADER, MAX_KEY, idempotency_key
from .openapi import AgentSchema, Component, header, operation, query_parameters
from .parameters import EnqueueOptions, NoParameters, metadata_of
from .permissions import MayEnqueue
from .schemas import EnqueuedSchema, TaskSchema

Task = TaskDefinition[..., Any]


def outside_tasks() -> list[Task]:
    """Return the tasks that may be enqueued from outside, by name."""
    return sorted((task for task in registry if task.api), key=lambda task: task.name)


def outside_task(name: str) -> Task:
    """Return such a task; one that may not be enqueued from outside does not exist there. Raises 404."""
    try:
        task = registry.get(name)
    except UnknownTask:
        task = None
    if task is None or not task.api:
        raise NotFound(f"There is no task {name!r} that may be enqueued from outside.")
    return task


class JsonTextParser(BaseParser):
    """JSON as it came: it is Pydantic that reads it, so that a strict model takes dates and ids as text."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> dict[str, bytes]:
        """Return the body as `json`; raise 413 if it is larger than a context may be."""
        body: bytes = stream.read(conf.MAX_CONTEXT_BYTES + 1)
        if len(body) > conf.MAX_CONTEXT_BYTES:
            raise TooLarge(f"The body has more than {conf.MAX_CONTEXT_BYTES:,} bytes. Store it and pass a reference.")
        return {"json": body}


class TaskListView(AgentView):
    """What one may enqueue."""

    permission_classes = [MayEnqueue]

    @operation("list_tasks", {200: list[TaskSchema]}, errors=[400])
    def get(self, request: Request) -> Response:
        """List the tasks that may be enqueued from outside, each with the JSON schema of its context."""
        NoParameters.read(request)
        return Response([self._shape(task).model_dump(mode="json") for task in outside_tasks()])

    def _shape(self, task: Task) -> TaskSchema:
        return TaskSchema(
            name=task.name,
            description=description_of(task),
            enqueue_url=self.url("task-enqueue", name=task.name),
            context=closed_schema(task.context_type.model_json_schema()),
        )


class EnqueueSchema(AgentSchema):
    """Describes the enqueueing of the task that the path names, or of all where it names none."""

    @property
    def task(self) -> Task | None:
        """The task of a path such as `/agents/tasks/research/`."""
        name = self.path.rpartition("/tasks/")[2].strip("/")
        return None if name == "{name}" else outside_task(unquote(name))

    def get_operation_id(self) -> str:
        """Return one name per task."""
        return f"enqueue_{self.task.name}" if self.task else "enqueue_task"

    def get_description(self) -> str:  # type: ignore[override]  # as drf-spectacular declares it
        """Return the task's own description before the general one."""
        general = super().get_description()
        return f"{description_of(self.task)}\n\n{general}".strip() if self.task else general

    def get_request_serializer(self) -> Any:
        """Return the context of the task, or of any."""
        if self.task:
            return context_component(self.task)
        contexts = [self.component(context_component(task)) for task in outside_tasks()]
        return {JsonTextParser.media_type: {"anyOf": contexts} if contexts else {"type": "object"}}

    def get_override_parameters(self) -> list[Any]:
        """Add the names of the tasks, where the path leaves it open."""
        parameters = super().get_override_parameters()
        if self.task:
            return parameters
        names = [task.name for task in outside_tasks()]
        kind: dict[str, Any] = {"type": "string", "enum": names} if names else {"type": "string"}
        return [*parameters, OpenApiParameter("name", kind, OpenApiParameter.PATH)]


def _enqueue_parameters() -> list[OpenApiParameter]:
    key = {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"}
    return [
        *query_parameters(EnqueueOptions),
        OpenApiParameter(HEADER, key, OpenApiParameter.HEADER, description="The same request again runs only once."),
    ]


class EnqueueView(AgentView):
    """Has a worker run a task."""

    permission_classes = [MayEnqueue]
    parser_classes = [JsonTextParser]
    schema = EnqueueSchema()

    @operation(
        "enqueue_task",
        {202: EnqueuedSchema},
        errors=[400, 404, 413, 415, 422],
        parameters=_enqueue_parameters,
        headers=[
            header("Location", str, 202, "The activity, to be polled."),
            header("Retry-After", int, 202, "Seconds until it is worth a look."),
        ],
    )
    def post(self, request: Request, name: str) -> Response:
        """Enqueue the task with the body as its context, and return at once.

        Whoever may monitor can give metadata, as `metadata.<key>=<value>` parameters.
        """
        options = EnqueueOptions.read(request, metadata=True)
        task, stamp = outside_task(name), get_policy().stamp(request.user)
        priority, metadata = self._priority(task, options.priority), self._metadata()
        parsed: Any = request.data
        body: bytes = parsed.get("json", b"{}")  # no body is an empty context
        context = outside_context(task, body)
        check_authorized(task, request.user, context, {**metadata, **stamp})
        with acting_as(request.user):
            handle = task.enqueue(
                context,
                priority=priority,
                delay=options.delay,
                metadata={**metadata, **stamp},
                idempotency_key=idempotency_key(request, task.name, stamp, body),
            )
        return self._accepted(handle)

    def _accepted(self, handle: ActivityHandle) -> Response:
        url = self.url("activity-detail", agent_id=handle.agent_id)
        status = "queued"
        if not handle.created:
            status = Activity.objects.values_list("status", flat=True).get(agent_id=handle.agent_id)
        shape = EnqueuedSchema.model_validate({"agent_id": handle.agent_id, "status": status, "status_url": url})
        return Response(
            shape.model_dump(mode="json"), status=202, headers={"Location": url, "Retry-After": str(RETRY_AFTER)}
        )

    def _priority(self, task: Task, name: str | None) -> Priority | None:
        if name is None:
            return None
        wanted = Priority[name.upper()]
        if wanted < task.priority and not self.monitors:
            self._refuse(f"Priority {name!r} is above the task's own; only those who may monitor can ask for it.")
        return wanted

    def _metadata(self) -> dict[str, str]:
        given = metadata_of(self.request)
        if given and not self.monitors:
            self._refuse("Only those who may monitor can give metadata.")
        return {key: values[-1] for key, values in given.items()}

    def _refuse(self, why: str) -> NoReturn:
        raise PermissionDenied(why)


def context_component(task: Task) -> Component:
    """Return the task's context as a component that has the task's name."""
    plain = "".join(one if one.isascii() and (one.isalnum() or one == "_") else f"-{ord(one):x}-" for one in task.name)
    return Component(task.context_type, f"{plain}_context", "validation")


def description_of(task: Task) -> str:
    """Return the documentation of the task's function."""
    return inspect.cleandoc(task.__doc__ or "")


def outside_context(task: Task, body: bytes) -> BaseModel:
    """Return the context of the body; raise 400. Strictly, as its published schema says: "5" is no number."""
    try:
        return read_context(task, body, strict=True)
    except pydantic.ValidationError as error:
        raise invalid(error) from error
