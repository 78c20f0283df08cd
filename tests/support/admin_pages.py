"""Shorthands of the admin's tests: users, clients, addresses, and many rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from pydantic import BaseModel

from django_agentexec import Status
from django_agentexec.models import Activity, Conversation
from django_agentexec.policy import TenantPolicy

ALL = ("view_activity", "cancel_activity", "retry_activity", "delete_activity")
CHANGE_LIST = "/admin/agentexec/activity/"
DASHBOARD = "/admin/agentexec/activity/dashboard/"
INBOX = "/admin/agentexec/approval/"
DECIDER = ("view_activity", "decide_approval")
"""Permissions of those who decide approvals."""
CONVERSATIONS = "/admin/agentexec/conversation/"
WRITER = ("view_activity", "view_conversation", "enqueue_task")
"""Permissions of those who write to agents."""


class TwoOrganizations(TenantPolicy):
    """Everybody belongs to one organization, staff included."""

    keys = ["organization_id"]

    def tenant(self, user: Any) -> Mapping[str, str | int] | None:
        return {"organization_id": user.first_name}

    def visible(self, user: Any, activities: Any) -> Any:
        return activities.for_metadata(organization_id=user.first_name)

    def visible_conversations(self, user: Any, conversations: Any) -> Any:
        return conversations.for_same_metadata(organization_id=user.first_name)

    def may(self, user: Any, permission: Any, activity: Activity | None = None) -> bool:
        return activity is None or activity.metadata.get("organization_id") == user.first_name

    def may_monitor(self, user: Any) -> bool:
        return False


TENANTS = {"POLICY": "tests.support.admin_pages.TwoOrganizations"}


def staff(*permissions: str, name: str = "maria", **fields: Any) -> User:
    """Return a member of the staff with these permissions."""
    user = User.objects.create_user(name, is_staff=True, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def signed_in(*permissions: str, **fields: Any) -> Client:
    """Return the client of a member of the staff with these permissions."""
    client = Client()
    client.force_login(staff(*permissions, **fields))
    return client


def page_of(agent_id: UUID, name: str = "change", *more: str) -> str:
    """Return the address of a page of an activity."""
    return reverse(f"admin:agentexec_activity_{name}", args=[agent_id, *more])


def listed(client: Client, **parameters: Any) -> list[UUID]:
    """Return the ids that the list shows for these parameters, first to last."""
    response = client.get(CHANGE_LIST, parameters)
    assert response.status_code == 200, response
    return [row.agent_id for row in response.context["cl"].result_list]


def said(response: Any) -> list[str]:
    """Return the messages of a response, or of those on the way to it."""
    return [str(message) for message in get_messages(response.wsgi_request)]


def fill(number: int, **fields: Any) -> None:
    """Make that many finished activities, with metadata."""
    values = {"agent_type": "import", "status": Status.COMPLETE, "metadata": {"organization_id": "org-1"}, **fields}
    Activity.objects.bulk_create([Activity(**values) for _ in range(number)], batch_size=1_000)


class Message(BaseModel):
    """The context of the task `answer`."""

    text: str
    language: str = "en"


def conversation_page(client: Client, conversation: Conversation) -> str:
    """Return the HTML of the page of a conversation."""
    return str(client.get(f"{CONVERSATIONS}{conversation.pk}/change/").content.decode())
