"""Who may see what in the example: visitors their own runs, permitted staff all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from django_agentexec.policy import TenantPolicy

from .shelf import OWNER_KEY

if TYPE_CHECKING:
    from django_agentexec.policy import User


class VisitorPolicy(TenantPolicy):
    """Every user is a tenant of their own. REST, websocket, admin and this app's pages all ask it."""

    keys = [OWNER_KEY]

    def tenant(self, user: User) -> Mapping[str, str]:
        """Return whose runs `user` sees."""
        return {OWNER_KEY: user.get_username()}
