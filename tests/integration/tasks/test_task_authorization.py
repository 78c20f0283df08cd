"""`@task(authorize=...)`, the actors of changes, and the user and metadata in the attempt of a handler."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.test import override_settings
from pydantic import BaseModel

from django_agentexec import Attempt, NotAuthorized, TaskDefinitionError, UserFacingError, activity, task
from django_agentexec.live.websocket import auth
from django_agentexec.models import Activity, ActivityLog
from django_agentexec.policy import Permission
from django_agentexec.tasks import registry
from django_agentexec.tasks.authorization import check_authorized, check_retry_authorized
from django_agentexec.testing import drain, make_attempt, memory_queue
from tests.support.activity_rows import row
from tests.support.admin_pages import ALL, CHANGE_LIST, page_of, said, signed_in
from tests.support.management_commands import call
from tests.support.rest_api import POLICY, admin, client, member, staff
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/agents/tasks/draft/"
ASKED: list[tuple[Any, int, Mapping[str, Any]]] = []
SEEN: list[tuple[Any, Mapping[str, Any]]] = []


class Ticket(BaseModel):
    id: int


OWNERS = {1: "org-1", 2: "org-2"}  # of the tickets


def owns_ticket(user: Any, context: Ticket, metadata: Mapping[str, Any]) -> bool:
    ASKED.append((user, context.id, metadata))
    return OWNERS.get(context.id) == metadata.get("organization_id")


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    """Register a task that checks the owner of its ticket, and a task that records its attempt."""
    ASKED.clear()
    SEEN.clear()

    @task("draft", api=True, max_retries=0, authorize=owns_ticket)
    def draft(agent_id: UUID, context: Ticket, attempt: Attempt) -> None:
        SEEN.append((attempt.enqueued_by, attempt.metadata))
        raise RuntimeError("no draft")

    @task("asks_a_child", api=True)
    def asks_a_child(agent_id: UUID, context: Ticket, attempt: Attempt) -> None:
        attempt.gather(attempt.spawn("draft", context), return_exceptions=True)

    with memory_queue(), override_settings(AGENTEXEC={"POLICY": POLICY, "QUEUE_BACKEND": QUEUE}):
        yield


QUEUE = "django_agentexec.queues.memory.MemoryQueue"


def post(user: User, number: int, url: str = URL) -> Any:
    return client(user).post(url, {"id": number}, format="json")


def test_a_context_with_anothers_ids_is_refused_before_anything_is_written() -> None:
    who = member("org-1")

    refused = post(who, 2)

    assert (refused.status_code, refused.json()) == (
        403,
        {"detail": "You may not run task 'draft' with this context."},
    )
    assert not Activity.objects.exists()
    assert post(who, 1).status_code == 202
    assert [(who, 2, {"organization_id": "org-1"}), (who, 1, {"organization_id": "org-1"})] == ASKED


def refuses(user: Any, context: Any, metadata: Any) -> bool:
    return False


def allows(user: Any, context: Any, metadata: Any) -> bool:
    return True


async def allows_later(user: Any, context: Any, metadata: Any) -> bool:
    await asyncio.sleep(0)
    return True


async def refuses_later(user: Any, context: Any, metadata: Any) -> bool:
    await asyncio.sleep(0)
    return False


async def fails_later(user: Any, context: Any, metadata: Any) -> bool:
    raise RuntimeError("redis://:secret@host")


def forgets(user: Any, context: Any, metadata: Any) -> Any:
    return None


def fails(user: Any, context: Any, metadata: Any) -> bool:
    raise Ticketless


def denies(user: Any, context: Any, metadata: Any) -> bool:
    raise PermissionDenied("This ticket is closed.")


def explains(user: Any, context: Any, metadata: Any) -> bool:
    raise UserFacingError("This ticket is closed.")


class Ticketless(Exception):
    """An exception of a project."""


class Callable:
    async def __call__(self, user: Any, context: Any, metadata: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        *[(allows, 202), (allows_later, 202), (Callable(), 202), (refuses, 403), (refuses_later, 403), (forgets, 403)],
        *[(fails, 403), (fails_later, 403), (denies, 403), (explains, 403)],
    ],
)
def test_only_a_true_answer_lets_it_pass(authorize: Any, status: int) -> None:
    registry.get("draft").authorize = authorize

    answer = post(member("org-1"), 1)

    assert answer.status_code == status
    assert Activity.objects.exists() is (status == 202)
    assert "secret" not in json.dumps(answer.json())
    if authorize in (denies, explains):
        assert answer.json() == {"detail": "This ticket is closed."}


@pytest.mark.parametrize("authorize", ["allows", 7, lambda user: True, lambda a, b, c, d: True])
def test_an_invalid_authorize_is_refused_at_registration(authorize: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="authorize"):
        task("other", authorize=authorize)(shout.handler)


def test_authorize_is_not_called_for_code() -> None:
    registry.get("draft").enqueue(Ticket(id=2), metadata={"organization_id": "org-1"})

    assert ASKED == []


def test_whose_access_has_ended_cannot_retry_it(monkeypatch: pytest.MonkeyPatch) -> None:
    who = member("org-1")
    run = UUID(post(who, 1).json()["agent_id"])
    activity.cancel(run)
    monkeypatch.setitem(OWNERS, 1, "org-2")

    assert client(who).post(f"/agents/activities/{run}/retry/").status_code == 403
    with pytest.raises(auth.Refused, match="You may not run task 'draft'"):
        auth.run_action(who, run, Permission.RETRY)
    assert row(run).status == "canceled"
    monkeypatch.setitem(OWNERS, 1, "org-1")
    auth.run_action(who, run, Permission.RETRY)
    assert row(run).status == "queued"


def test_the_admin_asks_too() -> None:
    run = registry.get("draft").enqueue(Ticket(id=2), metadata={"organization_id": "org-1"}).agent_id
    activity.cancel(run)
    who = signed_in(*ALL)

    assert who.post(page_of(run, "retry"), follow=True).status_code == 403
    answer = who.post(CHANGE_LIST, {"action": "retry_selected", "_selected_action": str(run), "post": "1"}, follow=True)
    assert any("not permitted" in text for text in said(answer))
    assert row(run).status == "canceled"


def test_a_context_that_no_longer_fits_cannot_be_checked_and_is_refused() -> None:
    run = registry.get("draft").enqueue(Ticket(id=1), metadata={"organization_id": "org-1"}).agent_id
    Activity.objects.update(context={"number": 1})

    with pytest.raises(NotAuthorized, match="corrected context"):
        check_retry_authorized(member("org-1"), run)


def test_an_unregistered_task_has_no_authorize() -> None:
    check_retry_authorized(member("org-1"), activity.create("import"))
    check_authorized(shout, member("org-2"), Text(), {})


# Actors


def test_a_handler_knows_the_user_and_the_metadata() -> None:
    who = member("org-1")
    post(who, 1)
    registry.get("draft").enqueue(Ticket(id=1), metadata={"team": "a"})
    drain()

    assert [(str(who.pk), {"organization_id": "org-1"}), (None, {"team": "a"})] == SEEN


def test_children_know_it_too() -> None:
    who = member("org-1")
    post(who, 1, "/agents/tasks/asks_a_child/")
    drain()

    assert [(str(who.pk), {"organization_id": "org-1"})] == SEEN
    assert set(Activity.objects.values_list("enqueued_by", flat=True)) == {str(who.pk)}


def test_code_can_act_in_the_name_of_a_user() -> None:
    who = member("org-1")
    with activity.acting_as(who):
        run = shout.enqueue(Text()).agent_id
    other = shout.enqueue(Text()).agent_id

    assert [row(one).enqueued_by for one in (run, other)] == [str(who.pk), None]
    assert [line.actor for line in ActivityLog.objects.order_by("id")] == [str(who.pk), None]


def test_an_attempt_of_a_unit_test_has_both() -> None:
    attempt = make_attempt(metadata={"team": "a"}, enqueued_by="7")

    assert (attempt.metadata, attempt.enqueued_by) == ({"team": "a"}, "7")
    assert make_attempt().enqueued_by is None


def test_the_actor_of_every_change_is_noted_and_shown() -> None:
    jo, root = member("org-1", "jo"), admin()
    run = UUID(post(jo, 1).json()["agent_id"])
    client(root).post(f"/agents/activities/{run}/cancel/")
    client(jo).post(f"/agents/activities/{run}/retry/")
    auth.run_action(root, run, Permission.CANCEL)
    boss = signed_in(*ALL, name="boss")
    boss.post(page_of(run, "retry"))
    activity.cancel(run)
    drain()
    console = call("agents", "retry", str(run), "--yes")

    assert console.code == 0
    actors = list(ActivityLog.objects.filter(activity_id=run).order_by("id").values_list("actor", flat=True))
    named = [str(one.pk) for one in (jo, root, jo, root, User.objects.get(username="boss"))]
    assert actors[:-1] == [*named, None]
    assert str(actors[-1]).startswith("terminal:")
    shown = client(root).get(f"/agents/activities/{run}/").json()
    assert shown["enqueued_by"] == str(jo.pk)
    assert [line["actor"] for line in shown["logs"]] == actors
    theirs = client(jo).get(f"/agents/activities/{run}/").json()
    assert [line["actor"] for line in theirs["logs"]] == [*actors[:-1], "terminal"]
    page = boss.get(page_of(run)).content.decode()
    assert all(f"by {name}" in page for name in ("jo", "admin", "boss", "terminal:"))
    assert "Enqueued by" in page
    text = call("agents", "show", str(run)).out
    assert f"(by {root.pk})" in text
    assert "enqueued by" in text


def test_a_user_who_is_named_like_a_key_of_another_is_no_problem() -> None:
    with activity.acting_as("7"):
        run = shout.enqueue(Text()).agent_id

    assert signed_in(*ALL).get(page_of(run)).status_code == 200
    assert row(run).enqueued_by is None


def test_a_terminal_may_act_as_a_user() -> None:
    who = member("org-1", "jo")
    as_jo = ("--user", "jo", "--metadata", "organization_id=org-1")

    refused = call("agents", "enqueue", "draft", '{"id": 2}', *as_jo)
    assert (refused.code, "You may not run task 'draft'" in refused.err) == (1, True)
    assert not Activity.objects.exists()
    assert call("agents", "enqueue", "draft", '{"id": 1}', *as_jo).code == 0
    assert Activity.objects.get().enqueued_by == str(who.pk)
    assert call("agents", "enqueue", "draft", '{"id": 1}', "--user", "nobody").code == 2
    assert call("agents", "enqueue", "draft", '{"id": 2}').code == 0
    assert Activity.objects.order_by("agent_id").last().enqueued_by is None  # type: ignore[union-attr]


# Contexts of a retry


def retry(who: User, run: UUID, body: Any) -> Any:
    return client(who).post(f"/agents/activities/{run}/retry/", body, format="json")


def left_behind() -> UUID:
    """Return an activity that was enqueued before a deploy changed the model."""
    run = registry.get("draft").enqueue(Ticket(id=1), metadata={"organization_id": "org-1"}).agent_id
    Activity.objects.update(context={"number": 1})
    drain()
    return run


def test_a_retry_may_correct_the_context() -> None:
    run, who = left_behind(), member("org-1")

    assert retry(who, run, {"context": {"id": 2}}).status_code == 403
    wrong = retry(who, run, {"context": {"id": "1"}})
    assert (wrong.status_code, wrong.json()) == (
        422,
        {
            "detail": "The context does not fit task 'draft'.",
            "context": {"id": ["Input should be a valid integer"]},
        },
    )
    assert retry(who, run, {"context": {"id": 1, "x": 1}}).status_code == 422
    assert retry(who, run, {"contxt": {"id": 1}}).status_code == 400
    assert row(run).status == "error"
    assert retry(who, run, {"context": {"id": 1}}).status_code == 202
    assert (row(run).status, row(run).context) == ("queued", {"id": 1})
    assert retry(who, run, {"context": {"id": 1}}).status_code == 409
    drain()
    assert SEEN == [(None, {"organization_id": "org-1"})]


def test_another_context_takes_the_permission_to_enqueue_and_a_task_that_is_open_to_it() -> None:
    run = left_behind()
    closed = shout.enqueue(Text()).agent_id
    activity.cancel(closed)

    assert retry(staff("retrier", "view_activity", "retry_activity"), run, {"context": {"id": 1}}).status_code == 403
    assert retry(admin(), closed, {"context": {"text": "x"}}).status_code == 403
    assert retry(admin(), closed, {}).status_code == 202


def test_code_may_correct_the_context() -> None:
    run = left_behind()

    with pytest.raises(ValueError, match="does not fit task 'draft'"):
        activity.retry(run, context={"id": "one"})
    with pytest.raises(ValueError, match="takes a Ticket"):
        activity.retry(run, context=Text())
    activity.retry(run, context=Ticket(id=5))
    assert row(run).context == {"id": 5}
    activity.cancel(run)
    activity.retry(run, context={"id": 6})
    assert row(run).context == {"id": 6}
    activity.cancel(run)
    activity.retry(run)
    assert row(run).context == {"id": 6}


def test_a_corrected_context_gives_the_lock_key() -> None:
    from tests.testapp.agents import Keyed, keyed

    run = keyed.enqueue(Keyed(key="a")).agent_id
    activity.cancel(run)

    activity.retry(run, context=Keyed(key="b"))

    assert row(run).lock_key == "key:b"


def test_a_terminal_may_correct_the_context() -> None:
    run = left_behind()

    assert call("agents", "retry", str(run), "--yes", "--context", '{"id": 1, "x": 2}').code == 2
    assert call("agents", "retry", "--all", "--yes", "--context", '{"id": 1}').code == 2
    assert call("agents", "retry", str(run), "--yes", "--context", '{"id": 1}').code == 0
    assert row(run).context == {"id": 1}
    assert call("agents", "retry", str(run), "--yes", "--context", '{"id": 1}').code == 1
