"""Addresses: the lookups that the list permits, the page to which a form returns, and the websocket of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.apps import apps
from django.contrib import messages
from django.contrib.admin import helpers
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _

from ..conf import conf

if TYPE_CHECKING:
    from .access import Base

_EXACT = "__exact"


def is_of_filter(lookup: str, filters: Sequence[Any], admin: Base) -> bool:
    """Return whether a parameter belongs to one of an admin's filters, or to its date hierarchy."""
    fields = [admin.date_hierarchy] if admin.date_hierarchy else []
    for one in filters:
        name = one[0] if isinstance(one, (tuple, list)) else one
        if isinstance(name, str):
            fields.append(name)
        elif lookup in getattr(name, "parameter_names", ()) or lookup == getattr(name, "parameter_name", None):
            return True
    return any(lookup == field or lookup.startswith(f"{field}__") for field in fields)


def without_unknown_lookups(admin: Base, request: HttpRequest) -> str | None:
    """Return the query without what the list does not filter by, or None if there is nothing such in it.

    `status__exact=error`, as Django's own filters would write it, becomes `status=error`. A message names the rest.
    Other lookups, which only a program asks for, are left to Django, which refuses them.
    """
    query, has_changed = request.GET.copy(), False
    for name in list(query):
        plain = name.removesuffix(_EXACT)
        if plain == name or admin.lookup_allowed(name, query.getlist(name)[-1], request):
            continue
        values, has_changed = query.pop(name), True
        if not admin.lookup_allowed(plain, values[-1], request):
            messages.warning(request, _("The list has no filter %(name)r; it was ignored.") % {"name": plain[:80]})
        elif any(values):
            query.setlist(plain, [value for value in values if value])
    return query.urlencode() if has_changed else None


def drop_impossible_selection(request: HttpRequest) -> None:
    """Leave only ids among the selected rows of a posted action; Django would fail on anything else."""
    selected = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
    possible = [text for text in selected if _is_id(text)]
    if len(possible) < len(selected):
        fields = request.POST.copy()
        fields.setlist(helpers.ACTION_CHECKBOX_NAME, possible)
        fields._mutable = False
        request.POST = fields  # type: ignore[assignment]  # the stubs have another class for what cannot be changed


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def next_address(request: HttpRequest, default: str) -> str:
    """Return the address of the page to which the request wants to return, if it belongs to this host."""
    asked = request.POST.get("next") or request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure()):
        return asked
    return default


def socket_path(agent_id: UUID | None = None) -> str:
    """Return the path of the websocket of all activities or of one, or "" if the project has none: the page polls."""
    if not apps.is_installed("django_agentexec.live") or not conf.SOCKET_URL:
        return ""
    return f"{conf.SOCKET_URL.rstrip('/')}/{agent_id}/" if agent_id else conf.SOCKET_URL
