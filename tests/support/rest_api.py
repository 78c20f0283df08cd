"""Helpers for tests of the REST API: users, clients, and a task with `api=True`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from pydantic import BaseModel, Field, field_validator
from rest_framework.test import APIClient

from django_agentexec import task
from django_agentexec.policy import TenantPolicy
from django_agentexec.tasks import AnyTask, registry
from tests.support import admin_pages

POLICY = f"{__name__}.OrganizationPolicy"


class OrganizationPolicy(TenantPolicy):
    """A policy whose tenant is the first name of the user."""

    keys = ["organization_id"]

    def tenant(self, user: Any) -> Mapping[str, str | int] | None:
        return {"organization_id": user.first_name} if user.first_name else None


class Page(BaseModel):
    number: int
    words: list[int] = []


class Order(BaseModel):
    """A context."""

    title: str = Field(min_length=1, max_length=50)
    pages: list[Page] = []
    options: dict[str, int] = {}
    first: Page | None = None

    @field_validator("title")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value == "unknown":
            raise ValueError("There is no such title.")
        return value


@contextmanager
def outside_task(name: str = "read_title", **options: Any) -> Iterator[AnyTask]:
    """Register a task with `api=True` inside the block."""

    @task(name, **{"api": True, **options})
    def read_title(agent_id: UUID, context: Order) -> str:
        """Read a title."""
        return context.title.upper()

    try:
        yield read_title
    finally:
        registry.unregister(name)


def staff(name: str = "staff", *permissions: str) -> User:
    """Return a staff user with these permissions of the model."""
    return admin_pages.staff(*permissions, name=name)


def admin() -> User:
    """Return the superuser."""
    return User.objects.get_or_create(username="admin", defaults={"is_staff": True, "is_superuser": True})[0]


def member(organization: str, name: str = "") -> User:
    """Return a user of a tenant of `OrganizationPolicy`."""
    return User.objects.create_user(name or f"member-of-{organization}", first_name=organization)


def client(user: User | None = None) -> APIClient:
    """Return a client that is logged in as `user`, if given."""
    made = APIClient()
    if user is not None:
        made.force_login(user)
    return made
