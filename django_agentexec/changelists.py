"""Lists of the admin at addresses that no database can look up."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError, NotSupportedError, ProgrammingError, connections, router, transaction
from django.http import HttpRequest

from .validation import is_storable

logger = logging.getLogger(__name__)

IMPOSSIBLE = (
    *(ArithmeticError, LookupError, TypeError, ValueError),
    *(DataError, NotSupportedError, ProgrammingError),
)
"""What Django raises when it converts values, and what databases raise for a value or a number of values."""


class StorableLookups:
    """A mixin for `ModelAdmin`: a filter or search with an impossible value is no server error.

    Nothing matches characters that no database holds; PostgreSQL raises an error for a NUL character in any parameter
    of a query. Other values that a database refuses, such as `?cost__gte=NaN`, lead back to the list without filters,
    as with Django's own invalid lookups. Regular expressions are not looked up, since a short one can take hours.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Return whether an address may use this lookup."""
        if lookup.endswith(("__regex", "__iregex")):
            return False
        return bool(super().lookup_allowed(lookup, value, request))  # type: ignore[misc]  # of ModelAdmin

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the rows; for a list, none if its address cannot be looked up."""
        found: Any = super().get_queryset(request)  # type: ignore[misc]  # of ModelAdmin
        match = request.resolver_match
        if match is not None and not (match.url_name or "").endswith("_changelist"):
            return found
        texts = (text for name, values in request.GET.lists() for text in (name, *values))
        return found if all(map(is_storable, texts)) else found.none()

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Return the list, which counts its rows. Raises `IncorrectLookupParameters` for values that cannot be counted.

        Inside a transaction (`ATOMIC_REQUESTS`), a savepoint keeps it usable.
        """
        using = router.db_for_read(self.model)  # type: ignore[attr-defined]  # of ModelAdmin
        guard = transaction.atomic(using=using) if connections[using].in_atomic_block else nullcontext()
        try:
            with guard:
                return super().get_changelist_instance(request)  # type: ignore[misc, no-any-return]  # of ModelAdmin
        except IMPOSSIBLE as error:
            if not request.GET:
                raise
            logger.info("The list %s cannot be looked up.", request.path, exc_info=True)
            raise IncorrectLookupParameters(error) from error
