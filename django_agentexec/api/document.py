"""The OpenAPI document of this API, with one operation per task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from drf_spectacular.generators import EndpointEnumerator, SchemaGenerator
from rest_framework.request import Request
from rest_framework.response import Response

from .base import AgentView
from .openapi import operation
from .permissions import MayUseApi
from .tasks import EnqueueView, exposed_tasks

Endpoint = tuple[str, str, str, Any]
"""Path, regular expression, method and view, as drf-spectacular lists them."""


def one_operation_per_task(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Replace the operation `tasks/{name}/` by an operation per task: a hook for `PREPROCESSING_HOOKS`."""
    expanded: list[Endpoint] = []
    for path, regex, method, callback in endpoints:
        names = ["{name}"]
        if issubclass(callback.cls, EnqueueView) and "{name}" in path:
            names = [quote(task.name) for task in exposed_tasks()] or names
        expanded += [(path.replace("{name}", name), regex, method, callback) for name in names]
    return expanded


class _Endpoints(EndpointEnumerator):
    def get_api_endpoints(self, patterns: Any = None, prefix: str = "") -> list[Endpoint]:  # type: ignore[override]  # as drf-spectacular's
        endpoints = super().get_api_endpoints(patterns, prefix)
        return one_operation_per_task([endpoint for endpoint in endpoints if issubclass(endpoint[3].cls, AgentView)])


class DocumentGenerator(SchemaGenerator):
    """A generator that describes the views of this API only, below the prefix of the project."""

    endpoint_inspector_cls = _Endpoints

    def get_schema(self, request: Request | None = None, public: bool = False) -> dict[str, Any]:
        """Return the document."""
        from .. import __version__

        document: dict[str, Any] = super().get_schema(request, public)
        document["info"] |= {"title": "Agents", "version": __version__}
        return document


class DocumentView(AgentView):
    """The OpenAPI document."""

    permission_classes = [MayUseApi]

    @operation("get_schema", {200: {"type": "object", "additionalProperties": True}})
    def get(self, request: Request) -> Response:
        """Return this document. It lists tasks, so it requires permission to view activities or to enqueue."""
        return Response(DocumentGenerator().get_schema(request, public=True))
