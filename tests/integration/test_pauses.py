"""Pauses and limits of rows: from the command to the queue, the workers and the lists."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission as AuthPermission
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import override_settings
from pydantic import BaseModel

from django_agentexec import InvalidOption, Task, activity, concurrency
from django_agentexec.concurrency.publication import publish
from django_agentexec.concurrency.table import RuleTable
from django_agentexec.models import Activity, ConcurrencyLimit, Pause, Status
from django_agentexec.policy import StaffPolicy, TenantPolicy
from django_agentexec.pool.reconciler import reconcile
from django_agentexec.queues import get_queue
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, memory_queue

pytestmark = pytest.mark.django_db(transaction=True)
QUEUE = "default"
NAME = "pausable"


class Job(BaseModel):
    name: str = "a"


def handler(agent_id: UUID, context: Job) -> None:
    """Do nothing."""


@pytest.fixture
def task() -> Iterator[Task[Any, Any, Any, Any]]:
    registered: Task[Any, Any, Any, Any] = Task(NAME, handler)
    registry.register(registered)
    with memory_queue():
        yield registered
    registry.unregister(NAME)


def status(run: Any) -> str:
    return str(Activity.objects.get(pk=run.agent_id).status)


def test_a_pause_names_the_actor_of_the_code_around_it() -> None:
    user = User.objects.create(username="ada")
    with activity.acting_as(user):
        concurrency.pause("queue", "slow")
        concurrency.pause("queue", "fast", actor="terminal:bob")
    concurrency.pause("task", NAME, actor=user)
    concurrency.pause("tenant", "org=7")

    actors = dict(Pause.objects.values_list("name", "actor"))
    assert actors == {"slow": str(user.pk), "fast": "terminal:bob", NAME: str(user.pk), "org=7": None}


@pytest.mark.parametrize(("scope", "name"), [("queue", QUEUE), ("task", NAME), ("tenant", "organization_id=7")])
def test_a_paused_activity_starts_after_the_pause(task: Task[Any, Any, Any, Any], scope: str, name: str) -> None:
    run = task.enqueue(Job(), metadata={"organization_id": 7})
    assert concurrency.pause(scope, name, reason="outage")
    assert not concurrency.pause(scope, name)
    later = task.enqueue(Job(), metadata={"organization_id": "7"})

    drain()

    assert (status(run), status(later)) == (Status.QUEUED, Status.QUEUED)
    assert activity.detail(run.agent_id).paused == scope
    assert {item.paused for item in activity.list().items} == {scope}
    assert concurrency.resume(scope, name)
    assert not concurrency.resume(scope, name)
    drain()
    assert (status(run), status(later)) == (Status.COMPLETE, Status.COMPLETE)


@pytest.mark.parametrize(("scope", "name"), [("queue", "other"), ("task", "other"), ("tenant", "organization_id=8")])
def test_others_are_not_paused(task: Task[Any, Any, Any, Any], scope: str, name: str) -> None:
    concurrency.pause(scope, name)
    run = task.enqueue(Job(), metadata={"organization_id": 7})

    assert activity.detail(run.agent_id).paused == ""
    drain()

    assert status(run) == Status.COMPLETE


def test_a_pause_survives_the_loss_of_the_queue(task: Task[Any, Any, Any, Any]) -> None:
    concurrency.pause("task", NAME)
    run = task.enqueue(Job())
    get_queue().clear()

    reconcile()
    drain()

    assert status(run) == Status.QUEUED


def test_a_worker_corrects_a_queue_that_has_lost_the_rules(task: Task[Any, Any, Any, Any]) -> None:
    concurrency.pause("task", NAME)
    revision = get_queue().limits_revision(QUEUE)
    get_queue().clear()
    table = RuleTable()
    table.load()

    table.follow(QUEUE, "")

    assert get_queue().limits_revision(QUEUE) == revision != ""
    assert table.is_current(QUEUE, revision)


def test_the_newest_rows_are_published(task: Task[Any, Any, Any, Any]) -> None:
    Pause.objects.bulk_create([Pause(scope="task", name=NAME)])  # sends no signals
    assert get_queue().limits_revision(QUEUE) == ""

    rules = publish([QUEUE])

    assert get_queue().limits_revision(QUEUE) == rules.revision(QUEUE) != ""


def test_a_limit_of_a_row_applies_to_a_task_without_limits(task: Task[Any, Any, Any, Any]) -> None:
    ConcurrencyLimit.objects.create(scope="task", name=NAME, maximum=0)
    run = task.enqueue(Job())
    drain()
    assert status(run) == Status.QUEUED

    ConcurrencyLimit.objects.update_or_create(scope="task", name=NAME, defaults={"maximum": 1})
    drain()

    assert status(run) == Status.COMPLETE


def test_an_invalid_row_does_not_stop_workers(task: Task[Any, Any, Any, Any]) -> None:
    ConcurrencyLimit.objects.bulk_create([ConcurrencyLimit(scope="task", name=NAME, rate_limit="often")])
    Pause.objects.bulk_create([Pause(scope="tenant", name="no value"), Pause(scope="planet", name="a")])
    run = task.enqueue(Job())

    drain()

    assert status(run) == Status.COMPLETE


@pytest.mark.parametrize(
    ("scope", "name", "message"),
    [
        ("pool", "a", "'pool' is unknown"),
        ("queue", "a b", "is not a queue name"),
        ("task", "", "Name the task, such as research_company"),
        ("tenant", "", "Name the tenant by its metadata, such as organization_id=7"),
        ("task", "a\0", "printable"),
        ("tenant", "organization_id", "must be a metadata key and its value"),
    ],
)
def test_an_invalid_target_is_refused(scope: str, name: str, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        concurrency.pause(scope, name)


# Terminal, REST, admin


def test_the_terminal_pauses_lists_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("agentexec", "pause", "task", "research", "--reason", "outage")
    call_command("agentexec", "pause")
    call_command("agentexec", "resume", "task", "research")
    call_command("agentexec", "pause")

    text = capsys.readouterr()
    assert "Paused task research" in text.out
    assert "outage" in text.out
    assert "terminal:" in text.out
    assert "Nothing is paused." in text.err


def test_the_terminal_asks_for_a_missing_name() -> None:
    with pytest.raises(CommandError, match="Name the queue, such as default"):
        call_command("agentexec", "pause", "queue")


def test_the_terminal_warns_of_a_task_that_does_not_exist(
    task: Task[Any, Any, Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("agentexec", "pause", "task", NAME)
    assert "no task" not in capsys.readouterr().err

    call_command("agentexec", "pause", "task", f"{NAME}s")

    warning = capsys.readouterr().err
    assert f"There is no task '{NAME}s'. Did you mean '{NAME}'?" in warning
    assert "It has no effect unless a worker registers a task of this name." in warning
    assert Pause.objects.count() == 2


def test_rest_warns_of_a_task_that_does_not_exist(client: Any, operator: User, task: Task[Any, Any, Any, Any]) -> None:
    client.force_login(operator)
    for name in (NAME, f"{NAME}s"):
        client.post("/agents/pauses/", {"scope": "task", "name": name}, content_type="application/json")
    client.post("/agents/pauses/", {"scope": "queue", "name": "nowhere"}, content_type="application/json")

    warnings = {row["name"]: row["warning"] for row in client.get("/agents/pauses/").json()}

    assert (warnings[NAME], warnings["nowhere"]) == (None, None)
    assert warnings[f"{NAME}s"].startswith(f"There is no task '{NAME}s'. It has no effect unless")


@pytest.mark.parametrize("monitors", [True, False])
def test_only_users_who_monitor_read_the_names_of_other_tasks(
    client: Any, operator: User, task: Task[Any, Any, Any, Any], monitors: bool
) -> None:
    if monitors:
        operator.user_permissions.add(AuthPermission.objects.get(codename="view_activity"))
    client.force_login(operator)
    body = {"scope": "task", "name": f"{NAME}s", "reason": ""}

    shown_page = client.post("/admin/agentexec/pause/add/", body, follow=True).content.decode()
    (shown,) = client.get("/agents/pauses/").json()

    hint = f"Did you mean '{NAME}'?"
    assert "There is no task" in shown_page
    assert (hint in html.unescape(shown_page), hint in shown["warning"]) == (monitors, monitors)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("pause", {"scope": "task", "name": "pausabel", "reason": ""}),
        ("concurrencylimit", {"scope": "task", "name": "pausabel", "maximum": 3, "rate_limit": ""}),
        (
            "budget",
            {"name": "B", "scope": "task", "task": "pausabel", "limit": 1, "unit": "money", "period": "day",
             "action": "fail", "is_active": "on"},
        ),
    ],
)  # fmt: skip
def test_the_admin_warns_of_a_task_that_does_not_exist(
    client: Any, task: Task[Any, Any, Any, Any], path: str, values: dict[str, Any]
) -> None:
    client.force_login(User.objects.create_superuser("root"))
    right = {key: NAME if value == "pausabel" else value for key, value in values.items()}
    add = f"/admin/agentexec/{path}/add/"

    assert "There is no task" not in client.post(add, right, follow=True).content.decode()
    shown = client.post(add, values, follow=True).content.decode()
    assert "There is no task &#x27;pausabel&#x27;. Did you mean &#x27;pausable&#x27;?" in shown


def test_a_module_of_tasks_that_cannot_be_imported_does_not_prevent_a_pause() -> None:
    def fail() -> None:
        raise ImportError("no such module")

    with patch.object(registry, "discover", fail):
        call_command("agentexec", "pause", "task", "unheard_of")

    assert Pause.objects.get().name == "unheard_of"


@pytest.fixture
def operator() -> User:
    user = User.objects.create_user("operator", is_staff=True)
    user.user_permissions.add(AuthPermission.objects.get(codename="pause_activity"))
    return user


def test_rest_pauses_and_resumes(client: Any, operator: User) -> None:
    client.force_login(operator)
    body = {"scope": "tenant", "name": "organization_id=7", "reason": "unpaid"}

    answer = client.post("/agents/pauses/", body, content_type="application/json")

    assert answer.status_code == 200, answer.content
    (shown,) = answer.json()
    assert (shown["scope"], shown["name"], shown["reason"]) == ("tenant", "organization_id=7", "unpaid")
    assert shown["actor"] == str(operator.pk)
    assert client.get("/agents/pauses/").json() == [shown]
    target = {"scope": "tenant", "name": "organization_id=7"}
    assert client.post("/agents/pauses/resume/", target, content_type="application/json").json() == []


@pytest.mark.parametrize("is_staff", [True, False])
def test_rest_refuses_users_without_the_permission(client: Any, is_staff: bool) -> None:
    client.force_login(User.objects.create_user("somebody", is_staff=is_staff))

    for path in ("/agents/pauses/", "/agents/pauses/resume/"):
        body = {"scope": "queue", "name": "default"}
        assert client.post(path, body, content_type="application/json").status_code == 403
    assert client.get("/agents/pauses/").status_code == 403
    assert not Pause.objects.exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [({"scope": "pool", "name": "a"}, 400), ({"scope": "tenant", "name": "a"}, 422), ({"scope": "queue"}, 400)],
)
def test_rest_names_what_is_invalid(client: Any, operator: User, body: dict[str, str], code: int) -> None:
    client.force_login(operator)

    assert client.post("/agents/pauses/", body, content_type="application/json").status_code == code


class OfTenants(StaffPolicy):
    """A policy that relies on the documented form of a tenant's name."""

    def may_pause(self, user: Any, scope: str, name: str) -> bool:
        key, value = name.split("=")
        return (key, value) == ("organization_id", "7")


@override_settings(AGENTEXEC={"POLICY": OfTenants})
@pytest.mark.parametrize("name", ["", "a", "organization_id=", "organization_id=7\0"])
def test_rest_asks_the_policy_about_possible_names_only(client: Any, operator: User, name: str) -> None:
    client.force_login(operator)

    for path in ("/agents/pauses/", "/agents/pauses/resume/"):
        body = {"scope": "tenant", "name": name}
        assert client.post(path, body, content_type="application/json").status_code == 422


class OfOrganizations(TenantPolicy):
    """The policy of docs/fairness.md, for users whose organization is their first name."""

    keys = ["organization_id"]

    def tenant(self, user: Any) -> dict[str, str]:
        return {"organization_id": user.first_name}

    def may_pause(self, user: Any, scope: str, name: str) -> bool:
        own = scope == "tenant" and name == f"organization_id={user.first_name}"
        return own or super().may_pause(user, scope, name)


@override_settings(AGENTEXEC={"POLICY": OfOrganizations})
def test_a_tenant_ends_its_own_pauses_and_not_those_of_staff(client: Any) -> None:
    tenant = User.objects.create_user("tenant", first_name="7")
    staff = User.objects.create_superuser("root")
    body = {"scope": "tenant", "name": "organization_id=7"}

    def post(path: str, user: User) -> Any:
        client.force_login(user)
        return client.post(f"/agents/pauses/{path}", body, content_type="application/json")

    assert post("", tenant).json()[0]["name"] == "organization_id=7"
    assert post("resume/", tenant).json() == []

    assert post("", staff).status_code == 200
    assert [shown["name"] for shown in post("", tenant).json()] == ["organization_id=7"]
    refused = post("resume/", tenant)
    assert (refused.status_code, refused.json()["detail"]) == (403, "You may not end this pause.")
    assert Pause.objects.get().actor == str(staff.pk)
    assert post("resume/", staff).json() == []


def test_the_admin_pauses_and_resumes(client: Any, operator: User) -> None:
    client.force_login(operator)
    add = "/admin/agentexec/pause/add/"
    assert client.post(add, {"scope": "tenant", "name": "no value", "reason": ""}).status_code == 200
    assert not Pause.objects.exists()

    assert client.post(add, {"scope": "task", "name": "research", "reason": "x"}).status_code == 302

    row = Pause.objects.get()
    assert row.actor == str(operator.pk)
    assert "research" in client.get("/admin/agentexec/pause/").content.decode()
    assert client.post(f"/admin/agentexec/pause/{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Pause.objects.exists()


def test_the_admin_refuses_staff_without_the_permission(client: Any) -> None:
    client.force_login(User.objects.create_user("somebody", is_staff=True))

    assert client.get("/admin/agentexec/pause/add/").status_code == 403
    assert client.get("/admin/agentexec/concurrencylimit/add/").status_code == 403


def test_the_admin_validates_limits(client: Any) -> None:
    client.force_login(User.objects.create_superuser("root"))
    add = "/admin/agentexec/concurrencylimit/add/"

    shown = client.post(add, {"scope": "key", "name": "org:7", "maximum": 3, "rate_limit": "10/minute"})
    assert "is not a rate" in shown.content.decode()
    assert client.post(add, {"scope": "key", "name": "org:7", "maximum": 3, "rate_limit": "10/m"}).status_code == 302
    assert str(ConcurrencyLimit.objects.get()) == "org:7 (3, 10/m)"
