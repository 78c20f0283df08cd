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
    """Who works."""

    permission_classes = [MayMonitor]

    @operation("list_workers", {200: list[WorkerSchema]}, errors=[503])
    def get(self, request: Request) -> Response:
        """List the worker processes."""
        return Response([worker.model_dump(mode="json") for worker in monitoring.workers()])


class QueuesView(AgentView):
    """What waits."""

    permission_classes = [MayMonitor]

    @operation("list_queues", {200: list[QueueSchema]}, errors=[503])
    def get(self, request: Request) -> Response:
        """List the queues with their depth by state, oldest age and throughput."""
        return Response([queue.model_dump(mode="json") for queue in monitoring.queues()])


class HealthView(AgentView):
    """For load balancers and containers, who are not signed in."""

    permission_classes = [AllowAny]

    @operation("get_health", {200: OkSchema | HealthSchema, 503: OkSchema | HealthSchema}, is_public=True)
    def get(self, request: Request) -> Response:
        """Tell whether activities that are enqueued now will run: 200 or 503.

        The single checks are for those who may see the servers; all others learn only whether it is ok.
        """
        health = monitoring.health()
        shape = health if self.monitors else OkSchema(ok=health.ok)
        return Response(shape.model_dump(mode="json"), status=200 if health.ok else 503)
