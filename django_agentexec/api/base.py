"""`AgentView`, the base of all views of the API, and the throttle of their changes.

Views read and write JSON only, show what the policy allows, and run without a transaction around the request.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseBase
from django.urls import NoReverseMatch, get_resolver, reverse
from django.utils.http import RFC3986_SUBDELIMS, escape_leading_slashes
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from ..exceptions import ActivityNotFound
from ..models import Activity, ActivityQuerySet
from ..policy import get_policy, nobody
from ..rates import count_change
from ..validation import validate_id
from .errors import as_api_exception
from .openapi import AgentSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ROUTES = f"{__package__}.urls"


class FirstRenderer(BaseContentNegotiation):
    """Content negotiation that ignores the Accept header, for views with one renderer. Their errors are JSON."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        """Return the first."""
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the first."""
        first = next(iter(renderers))
        return first, str(first.media_type)


class ChangeThrottle(BaseThrottle):
    """One allowance per user for enqueue, retry and cancel together, since each of them may start a run."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """Count the request, if the rate allows another."""
        user = request.user
        self._wait = count_change(user.pk if user.is_authenticated else self.get_ident(request))
        return self._wait is None

    def wait(self) -> float | None:
        """Return the seconds until the next change is allowed."""
        return self._wait


class AgentView(APIView):
    """A view of the API. The project sets authentication and throttles, the policy decides on permissions."""

    renderer_classes = [JSONRenderer]
    parser_classes = [JSONParser]
    versioning_class = None
    schema = AgentSchema()

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:  # type: ignore[override]  # a function, too
        """Return the view, without a transaction around it even where ATOMIC_REQUESTS is set.

        So a change is pushed to the queue before the response is sent, a waiting client holds no database
        connection, and the health check works while the database is unavailable.
        """
        view = super().as_view(**initkwargs)
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Call the method with the URL parameters it declares; others belong to the project's URL prefix."""
        method = getattr(self, (request.method or "").lower(), None)
        names = _parameters(method.__func__) if method and hasattr(method, "__func__") else ()
        return super().dispatch(request, **{name: value for name, value in kwargs.items() if name in names})

    def perform_authentication(self, request: Request) -> None:
        """Authenticate; where `UNAUTHENTICATED_USER` is None, a request without a user gets `nobody()`."""
        super().perform_authentication(request)
        user: object = request.user
        if user is None:
            request.user = nobody()  # type: ignore[assignment]  # the stubs accept Django's users only

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the project's throttles, after `ChangeThrottle` for methods that change something."""
        changes = [] if self.request.method in SAFE_METHODS else [ChangeThrottle()]
        return [*changes, *super().get_throttles()]

    @property
    def activities(self) -> ActivityQuerySet:
        """The activities that are visible to the user."""
        return get_policy().visible(self.request.user, Activity.objects.all())

    @property
    def monitors(self) -> bool:
        """Whether the user has the monitor permission."""
        return get_policy().may_monitor(self.request.user)

    def find(self, agent_id: str, activities: ActivityQuerySet | None = None) -> Activity:
        """Return a visible activity on which the user has the view's permission. Raises 404, then 403."""
        found = (self.activities if activities is None else activities).filter(agent_id=validate_id(agent_id)).first()
        if found is None:
            raise ActivityNotFound(agent_id)
        self.check_object_permissions(self.request, found)
        return found

    def url(self, view: str, **kwargs: object) -> str:
        """Return the path of another view of this API, below the same prefix as the requested path."""
        routes, match = get_resolver(_ROUTES), self.request.resolver_match
        if match is not None and match.url_name:
            with suppress(NoReverseMatch):
                here = unquote(routes.reverse(match.url_name, **self.kwargs))
                if self.request.path.endswith(here):
                    base = quote(self.request.path.removesuffix(here), safe=RFC3986_SUBDELIMS + "/~:@")
                    return escape_leading_slashes(base + routes.reverse(view, **kwargs))
        namespace = match.namespace if match else "agentexec"
        return reverse(f"{namespace}:{view}" if namespace else view, kwargs=kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """Convert the package's exceptions into responses, too."""
        return super().handle_exception(as_api_exception(exc))


@cache
def _parameters(method: Callable[..., object]) -> tuple[str, ...]:
    return tuple(signature(method).parameters)
