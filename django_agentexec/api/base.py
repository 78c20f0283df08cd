"""`AgentView`: what all views of the API share. JSON only, the policy's eyes, no transaction around the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.http import HttpResponseBase
from django.urls import reverse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityQuerySet
from ..policy import get_policy
from ..values import checked_id
from .errors import translated
from .openapi import AgentSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class FirstRenderer(BaseContentNegotiation):
    """For views that answer in one form, whatever the client accepts; their errors are JSON."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """Take the first."""
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Take the first."""
        first = next(iter(renderers))
        return first, str(first.media_type)


class AgentView(APIView):
    """A view of the API. Authentication and throttles are the project's, permissions the policy's."""

    renderer_classes = [JSONRenderer]
    parser_classes = [JSONParser]
    versioning_class = None
    schema = AgentSchema()

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:  # type: ignore[override]  # a function, too
        """Return the view, without a transaction around it even where ATOMIC_REQUESTS is set.

        A change is pushed to the queue before the client hears of it, a waiting client holds no connection,
        and health can be asked when the database is away.
        """
        view = super().as_view(**initkwargs)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    @property
    def activities(self) -> ActivityQuerySet:
        """What the caller may know of."""
        return get_policy().visible(self.request.user, Activity.objects.all())

    @property
    def monitors(self) -> bool:
        """Whether the caller may see what tells of the servers."""
        return get_policy().may_monitor(self.request.user)

    def find(self, agent_id: str, activities: ActivityQuerySet | None = None) -> Activity:
        """Return a visible activity on which the caller has the view's permission. Raises 404, then 403."""
        found = (self.activities if activities is None else activities).filter(agent_id=checked_id(agent_id)).first()
        if found is None:
            raise ActivityNotFound(agent_id)
        self.check_object_permissions(self.request, found)
        return found

    def url(self, view: str, **kwargs: object) -> str:
        """Return the path of another view of this API, wherever it is mounted."""
        match = self.request.resolver_match
        namespace = match.namespace if match else "agentexec"
        return reverse(f"{namespace}:{view}", kwargs=kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """Answer the package's own errors, too."""
        return super().handle_exception(translated(exc))
