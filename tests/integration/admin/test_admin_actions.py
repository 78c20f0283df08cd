"""Cancel, retry and delete in the admin: confirmed, permitted, logged and reported."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.test import Client, override_settings

from django_agentexec import Status, activity
from django_agentexec.admin import bulk
from django_agentexec.models import Activity, ActivityLog
from tests.support.activity_rows import claimed_ids, row, start
from tests.support.admin_pages import ALL, CHANGE_LIST, TENANTS, page_of, said, signed_in
from tests.testapp.agents import Text, fail, shout

pytestmark = pytest.mark.django_db(transaction=True)


def ask(client: Client, action: str, ids: list[UUID], *, across: bool = False, query: str = "") -> Any:
    """Choose an action in the list."""
    data = {"action": action, "index": "0", "select_across": "1" if across else "0", "_selected_action": ids}
    return client.post(f"{CHANGE_LIST}{query}", data)


def confirm(client: Client, question: Any, query: str = "") -> Any:
    """Press the button of the confirmation page."""
    data: dict[str, Any] = {"post": "yes"}
    for name, value in question.context["hidden"]:
        data.setdefault(name, []).append(value)
    return client.post(f"{CHANGE_LIST}{query}", data)


def failed() -> UUID:
    agent_id = fail.enqueue(Text()).agent_id
    start(agent_id)
    activity.error(agent_id, "broken")
    return agent_id


def test_asks_before_it_cancels() -> None:
    waiting = shout.enqueue(Text()).agent_id
    ended = activity.create("import")
    activity.complete(ended)
    client = signed_in(*ALL)

    question = ask(client, "cancel_selected", [waiting, ended])

    assert question.status_code == 200
    assert question.context["title"] == "Cancel 1 activity?"
    assert "1 more is selected, but its status does not allow it" in question.content.decode()
    assert row(waiting).status == Status.QUEUED


def test_cancels_the_selected_and_tells_of_those_it_left() -> None:
    chosen, other = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    ended = activity.create("import")
    activity.complete(ended)
    client = signed_in(*ALL)

    answer = confirm(client, ask(client, "cancel_selected", [chosen, ended]))

    assert answer.status_code == 302
    assert said(answer) == ["1 activity was canceled.", "1 activity was left as it is: 1 already complete."]
    assert [row(one).status for one in (chosen, other)] == [Status.CANCELED, Status.QUEUED]
    assert claimed_ids() == [other]


def test_cancels_all_that_match_and_nothing_that_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    matching = [shout.enqueue(Text(), metadata={"org": "1"}).agent_id for _ in range(5)]
    other = shout.enqueue(Text(), metadata={"org": "2"}).agent_id
    client, query = signed_in(*ALL), "?metadata.org=1"

    question = ask(client, "cancel_selected", matching[:1], across=True, query=query)
    assert question.context["count"] == 5
    assert len(question.context["hidden"]) < 6  # not one for each row
    late = shout.enqueue(Text(), metadata={"org": "1"}).agent_id
    answer = confirm(client, question, query)

    assert said(answer) == ["5 activities were canceled."]
    assert {row(one).status for one in matching} == {Status.CANCELED}
    assert {row(one).status for one in (other, late)} == {Status.QUEUED}


def test_all_that_match_needs_the_bound_of_the_question() -> None:
    waiting = shout.enqueue(Text()).agent_id
    data = {"action": "cancel_selected", "select_across": "1", "_selected_action": [waiting], "post": "yes"}

    answer = signed_in(*ALL).post(CHANGE_LIST, data)

    assert answer.status_code == 200  # the question again
    assert row(waiting).status == Status.QUEUED


def test_retries_the_selected() -> None:
    broken, waiting = failed(), shout.enqueue(Text()).agent_id
    client = signed_in(*ALL)

    answer = confirm(client, ask(client, "retry_selected", [broken, waiting]))

    assert said(answer) == ["1 activity was queued again.", "1 activity was left as it is: 1 still queued."]
    assert row(broken).status == Status.QUEUED
    assert broken in claimed_ids()


def test_every_change_is_in_the_admins_log() -> None:
    one, two = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    client = signed_in(*ALL)

    confirm(client, ask(client, "cancel_selected", [one, two]))

    entries = LogEntry.objects.all()
    assert {(entry.object_id, entry.change_message, entry.action_flag) for entry in entries} == {
        (str(one), "Canceled.", CHANGE),
        (str(two), "Canceled.", CHANGE),
    }
    assert {entry.user.get_username() for entry in entries} == {"maria"}
    assert "Canceled." in client.get(page_of(one, "history")).content.decode()


def test_the_log_of_many_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_LOG_ENTRIES", 2)
    ids = [shout.enqueue(Text()).agent_id for _ in range(5)]
    client = signed_in(*ALL)

    confirm(client, ask(client, "cancel_selected", ids))

    assert LogEntry.objects.count() == 3
    assert LogEntry.objects.get(object_id=None).object_repr == "3 more activities"


def test_an_action_is_offered_to_those_with_its_permission() -> None:
    waiting = shout.enqueue(Text()).agent_id
    client = signed_in("view_activity", "retry_activity")

    page = client.get(CHANGE_LIST).content.decode()
    answer = ask(client, "cancel_selected", [waiting])

    assert 'value="retry_selected"' in page
    assert 'value="cancel_selected"' not in page
    assert answer.status_code == 302
    assert said(answer) == ["No action selected."]


@override_settings(AGENTEXEC=TENANTS)
def test_the_policy_is_asked_for_every_row() -> None:
    ours = activity.create("import", metadata={"organization_id": "org-1"})
    theirs = activity.create("import", metadata={"organization_id": "org-2"})
    client = signed_in(*ALL, first_name="org-1")

    answer = confirm(client, ask(client, "cancel_selected", [ours, theirs]))

    assert said(answer) == ["1 activity was canceled."]
    assert row(theirs).status == Status.QUEUED


# One


def test_cancels_one_after_a_question() -> None:
    agent_id = shout.enqueue(Text()).agent_id
    start(agent_id)
    client = signed_in(*ALL)

    question = client.get(page_of(agent_id, "cancel"))
    assert "csrfmiddlewaretoken" in question.content.decode()
    assert row(agent_id).status == Status.RUNNING
    answer = client.post(page_of(agent_id, "cancel"))

    assert answer["Location"] == page_of(agent_id)
    assert said(answer) == ["1 activity was canceled."]
    assert row(agent_id).status == Status.CANCELED
    assert LogEntry.objects.get().object_id == str(agent_id)


def test_retries_one() -> None:
    agent_id = failed()

    answer = signed_in(*ALL).post(page_of(agent_id, "retry"))

    assert said(answer) == ["1 activity was queued again."]
    assert row(agent_id).status == Status.QUEUED


def test_tells_that_one_has_ended_in_the_meantime() -> None:
    agent_id = activity.create("import")
    activity.complete(agent_id)

    answer = signed_in(*ALL).post(page_of(agent_id, "cancel"))

    assert said(answer) == ["1 activity was left as it is: 1 already complete."]


@pytest.mark.parametrize(("verb", "permission"), [("cancel", "retry_activity"), ("retry", "cancel_activity")])
def test_one_needs_the_permission(verb: str, permission: str) -> None:
    agent_id = failed()
    client = signed_in("view_activity", permission)

    assert client.get(page_of(agent_id, verb)).status_code == 403
    assert client.post(page_of(agent_id, verb)).status_code == 403


def test_one_needs_the_token_against_forged_requests() -> None:
    agent_id = activity.create("import")
    client = signed_in(*ALL)
    client.handler.enforce_csrf_checks = True

    assert client.post(page_of(agent_id, "cancel")).status_code == 403


@override_settings(AGENTEXEC=TENANTS)
@pytest.mark.parametrize("verb", ["cancel", "retry", "change", "live", "delete", "history"])
def test_what_is_not_visible_does_not_exist(verb: str) -> None:
    theirs = activity.create("import", metadata={"organization_id": "org-2"})

    answer = signed_in(*ALL, first_name="org-1").get(page_of(theirs, verb))

    assert answer.status_code == (404 if verb == "live" else 302)


# Delete


def test_deletes_what_has_finished_and_keeps_what_is_active() -> None:
    ended, active = activity.create("import"), activity.create("import")
    activity.complete(ended)
    client = signed_in(*ALL)

    answer = confirm(client, ask(client, "delete_selected", [ended, active]))

    assert said(answer) == ["1 activity was deleted.", "1 activity was left as it is: 1 still queued."]
    assert list(Activity.objects.values_list("agent_id", flat=True)) == [active]
    assert not ActivityLog.objects.filter(activity_id=ended).exists()
    assert LogEntry.objects.get().action_flag == DELETION


def test_deletes_one_that_has_finished_and_names_no_line_of_its_log() -> None:
    ended = activity.create("import", "A line of the log")
    activity.complete(ended)
    client = signed_in(*ALL)

    question = client.get(page_of(ended, "delete")).content.decode()
    client.post(page_of(ended, "delete"), {"post": "yes"})

    assert "Log lines: 2" in question
    assert "A line of the log" not in question
    assert not Activity.objects.exists()


def test_an_active_one_cannot_be_deleted() -> None:
    active = activity.create("import")

    assert signed_in(*ALL).post(page_of(active, "delete"), {"post": "yes"}).status_code == 403
    assert Activity.objects.exists()


def test_deleting_needs_the_permission() -> None:
    ended = activity.create("import")
    activity.complete(ended)
    client = signed_in("view_activity", "cancel_activity")

    assert client.post(page_of(ended, "delete"), {"post": "yes"}).status_code == 403
    assert 'value="delete_selected"' not in client.get(CHANGE_LIST).content.decode()
