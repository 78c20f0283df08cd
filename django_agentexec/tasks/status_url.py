"""Where an activity can be looked at: the path of its detail in the REST API, in whatever namespace that is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import NoReverseMatch, URLResolver, get_resolver, get_urlconf, reverse

from ..conf import conf

_VIEW = "activity-detail"
_API = f"{__package__.rpartition('.')[0]}.api."  # the modules of the views


def status_url(agent_id: UUID) -> str:
    """Return the path of an activity: of `STATUS_VIEW`, else of the API's own view, else what `STATUS_URL` says."""
    if getattr(settings, "ROOT_URLCONF", None):  # a project of workers alone may have no URLs
        for name in [conf.STATUS_VIEW] if conf.STATUS_VIEW else _view_names(get_urlconf() or settings.ROOT_URLCONF):
            try:
                return reverse(name, kwargs={"agent_id": agent_id})
            except NoReverseMatch:
                continue
    return conf.STATUS_URL.format(agent_id=agent_id)


@cache
def _view_names(urlconf: Any) -> list[str]:
    """Return the names under which the detail is mounted, those of outer namespaces first."""
    return ["agentexec:" + _VIEW, *_names_in(get_resolver(urlconf), "")]


def _names_in(resolver: URLResolver, namespace: str) -> Iterator[str]:
    if any(_is_detail(pattern) for pattern in _patterns(resolver)):
        yield namespace + _VIEW
    for name, (_, inner) in resolver.namespace_dict.items():
        yield from _names_in(inner, f"{namespace}{name}:")


def _patterns(resolver: URLResolver) -> Iterator[Any]:
    """Yield the patterns of one namespace, those of includes without a namespace of their own among them."""
    for pattern in resolver.url_patterns:
        if not isinstance(pattern, URLResolver):
            yield pattern
        elif not pattern.namespace:
            yield from _patterns(pattern)


def _is_detail(pattern: Any) -> bool:
    view = getattr(pattern.callback, "cls", None)
    return pattern.name == _VIEW and view is not None and any(one.__module__.startswith(_API) for one in view.__mro__)
