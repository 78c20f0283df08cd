"""Database routers: `check` reports what a router makes of the transactional guarantee."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import connections
from django.test import override_settings

from django_agentexec.models import Activity


class Separate:
    """Activities, and all that belongs to them, in a database of their own."""

    labels: tuple[str, ...] = ("agentexec", "agentexec_schedules")

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "agents" if model._meta.app_label in self.labels else None

    db_for_read = db_for_write


class Half(Separate):
    """Activities without the rows that are written together with them."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "agents" if model is Activity else None


class Replica:
    """Reads from elsewhere."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"


class Legacy:
    """The project's users are elsewhere, activities are in the default database."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "legacy" if model._meta.app_label == "auth" else None


class Everything:
    """All in one database, which is not the default database."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "agents"


def found(router: type) -> dict[str, str]:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.{router.__name__}"]):
        messages = run_checks(tags=["agentexec"])
    return {str(one.id): f"{one.msg} {one.hint}" for one in messages if str(one.id).endswith("016")}


def other_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the alias exist: checks ask it for its vendor."""
    for alias in ("agents", "replica", "legacy"):
        monkeypatch.setitem(connections.databases, alias, connections.databases["default"])


@pytest.mark.parametrize("router", [Replica, Legacy, Everything])
def test_routers_that_keep_the_guarantee(router: type, monkeypatch: pytest.MonkeyPatch) -> None:
    other_database(monkeypatch)

    assert found(router) == {}


def test_activities_in_another_database_than_the_projects_models(monkeypatch: pytest.MonkeyPatch) -> None:
    other_database(monkeypatch)

    messages = found(Separate)

    assert set(messages) == {"agentexec.W016"}
    assert "'agents'" in messages["agentexec.W016"]
    assert "'default'" in messages["agentexec.W016"]
    assert "on_commit" in messages["agentexec.W016"]


def test_activities_without_their_logs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other_database(monkeypatch)

    messages = found(Half)

    assert set(messages) == {"agentexec.E016"}
    assert "agentexec.ActivityLog to 'default'" in messages["agentexec.E016"]
