"""The example's policy: visitors see their own runs, permitted staff see all runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django_agentexec.policy import TenantPolicy

from .shelf import OWNER_KEY

if TYPE_CHECKING:
    from django_agentexec.policy import User


class VisitorPolicy(TenantPolicy):
    """Policy with every user as a separate tenant, for REST, websockets, admin and the pages of this app."""

    keys = [OWNER_KEY]

    def tenant(self, user: User) -> Mapping[str, str]:
        """Return the metadata of the runs that `user` sees."""
        return {OWNER_KEY: user.get_username()}
