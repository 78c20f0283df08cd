"""Workers, queues and health over REST, in the shapes of `django_agentexec.monitoring`."""

from __future__ import annotations

from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from .. import monitoring
from ..monitoring import HealthSchema, QueueSchema, WorkerSchema
from .base import AgentView
from .openapi import operation
from .permissions import MayMonitor
from .schemas import OkSchema


class WorkersView(AgentView):
    """The list of worker processes."""

    permission_classes = [MayMonitor]

    @operation("list_workers", {200: list[WorkerSchema]}, errors=[503])
    def get(self, request: Request) -> Response:
        """List the worker processes."""
        return Response([worker.model_dump(mode="json") for worker in monitoring.workers()])


class QueuesView(AgentView):
    """The list of queues."""

    permission_classes = [MayMonitor]

    @operation("list_queues", {200: list[QueueSchema]}, errors=[503])
    def get(self, request: Request) -> Response:
        """List the queues with their depth by place, the age of the oldest activity, and throughput."""
        return Response([queue.model_dump(mode="json") for queue in monitoring.queues()])


class HealthView(AgentView):
    """The health check, for load balancers and containers without a user."""

    permission_classes = [AllowAny]

    @operation("get_health", {200: OkSchema | HealthSchema, 503: OkSchema | HealthSchema}, is_public=True)
    def get(self, request: Request) -> Response:
        """Return 200 if activities that are enqueued now will run, otherwise 503.

        The single checks require the monitor permission; without it the response contains only `ok`.
        """
        health = monitoring.health()
        shape = health if self.monitors else OkSchema(ok=health.ok)
        return Response(shape.model_dump(mode="json"), status=200 if health.ok else 503)
