"""Run a finished activity again as a new activity, with the same or a changed context."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from django.contrib.admin.models import ADDITION, LogEntry
from django.test import override_settings

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from tests.support.activity_rows import claimed_ids, row, start
from tests.support.admin_pages import ALL, TENANTS, page_of, signed_in
from tests.testapp.agents import Keyed, keyed

pytestmark = pytest.mark.django_db(transaction=True)

ENQUEUE = (*ALL, "enqueue_task")


@pytest.fixture
def finished() -> UUID:
    """The id of a complete activity."""
    agent_id = keyed.enqueue(Keyed(key="a", number=3), metadata={"organization_id": "org-1"}, priority=1).agent_id
    start(agent_id)
    activity.complete(agent_id, result=3)
    claimed_ids()
    return agent_id


def copy_of(agent_id: UUID) -> Activity:
    return Activity.objects.exclude(pk=agent_id).get()


def test_a_complete_activity_runs_again_as_a_new_one(finished: UUID) -> None:
    client = signed_in(*ENQUEUE)
    address = f"{page_of(finished, 'copy')}?unchanged=1"
    assert '"number": 3' in client.get(address).content.decode().replace("&quot;", '"')

    answer = client.post(address)

    new = copy_of(finished)
    assert answer["Location"] == page_of(new.agent_id)
    assert (new.status, new.context, new.priority, new.metadata) == (
        Status.QUEUED,
        {"key": "a", "number": 3, "seconds": 0.0},
        1,
        {"organization_id": "org-1"},
    )
    assert row(finished).status == Status.COMPLETE
    assert claimed_ids() == [new.agent_id]
    assert LogEntry.objects.get().action_flag == ADDITION


def test_the_context_of_the_copy_can_be_changed(finished: UUID) -> None:
    signed_in(*ENQUEUE).post(page_of(finished, "copy"), {"context": json.dumps({"key": "b", "number": 4})})

    assert copy_of(finished).context == {"key": "b", "number": 4, "seconds": 0.0}
    assert copy_of(finished).enqueued_by is not None


@pytest.mark.parametrize(
    ("context", "field", "message"),
    [
        ('{"number": 4}', "key", "is missing."),
        ('{"key": "b", "numbr": 4}', "numbr", "is not a field of this task."),
        ('{"key": "b", "number": "x"}', "number", "valid integer"),
        ('{"key": ', "", "This is not valid JSON"),
    ],
)
def test_an_error_is_shown_at_its_field_and_nothing_is_enqueued(
    finished: UUID, context: str, field: str, message: str
) -> None:
    answer = signed_in(*ENQUEUE).post(page_of(finished, "copy"), {"context": context})

    assert answer.status_code == 400
    [error] = answer.context["errors"]
    assert error.field == field
    assert message in error.message
    assert Activity.objects.count() == 1
    assert 'aria-invalid="true"' in answer.content.decode()


def test_the_tasks_authorize_is_asked(finished: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "authorize", lambda user, context, metadata: context.key == "a")
    client = signed_in(*ENQUEUE)

    refused = client.post(page_of(finished, "copy"), {"context": '{"key": "b"}'})

    assert refused.status_code == 400
    assert Activity.objects.count() == 1
    client.post(page_of(finished, "copy"), {"context": '{"key": "a"}'})
    assert Activity.objects.count() == 2


def test_it_needs_the_permission_to_enqueue_and_a_finished_activity(finished: UUID) -> None:
    without, permitted = signed_in(*ALL), signed_in(*ENQUEUE, name="jo")
    active = keyed.enqueue(Keyed(key="c")).agent_id

    assert without.get(page_of(finished, "copy")).status_code == 403
    assert without.post(page_of(finished, "copy"), {"context": "{}"}).status_code == 403
    assert permitted.get(page_of(active, "copy")).status_code == 403
    assert page_of(finished, "copy") not in without.get(page_of(finished)).content.decode()
    assert page_of(finished, "copy") in permitted.get(page_of(finished)).content.decode()


@override_settings(AGENTEXEC=TENANTS)
def test_users_who_may_not_monitor_copy_only_tasks_of_the_api(finished: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    client = signed_in(*ENQUEUE, first_name="org-1")
    assert client.get(page_of(finished, "copy")).status_code == 403

    monkeypatch.setattr(keyed, "api", True)

    assert client.get(page_of(finished, "copy")).status_code == 200
