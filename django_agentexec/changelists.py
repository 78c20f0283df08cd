"""Lists of the admin at addresses that no database can look up."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from .validation import is_storable


class StorableLookups:
    """A mixin for `ModelAdmin`: nothing matches filters and searches with characters that no database holds.

    PostgreSQL raises an error for a NUL character in any parameter of a query.
    """

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows; for a list, none if its address cannot be looked up."""
        found: Any = super().get_queryset(request)  # type: ignore[misc]  # of ModelAdmin
        match = request.resolver_match
        if match is not None and not (match.url_name or "").endswith("_changelist"):
            return found
        texts = (text for name, values in request.GET.lists() for text in (name, *values))
        return found if all(map(is_storable, texts)) else found.none()
