"""The enqueue over REST: contexts, options, idempotency keys and permissions."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import override_settings
from django.urls import reverse
from rest_framework.test import APIClient

from django_agentexec import Priority
from django_agentexec.models import Activity
from tests.support.activity_rows import claimed_ids, row
from tests.support.rest_api import POLICY, admin, client, member, outside_task, staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("read_title")]

URL = "/agents/tasks/read_title/"


def post(who: APIClient, body: Any, url: str = URL, **headers: str) -> HttpResponse:
    return who.post(url, body, format="json", headers=headers)


def enqueuer() -> APIClient:
    return client(staff("enqueuer", "enqueue_task", "view_activity"))


def test_a_task_is_enqueued_and_can_be_polled(django_capture_on_commit_callbacks: Any) -> None:
    who = enqueuer()

    with django_capture_on_commit_callbacks(execute=True):
        answer = post(who, {"title": "Acme", "pages": [{"number": 1}]})

    agent_id = UUID(answer.json()["agent_id"])
    assert answer.status_code == 202
    assert answer.json() == {
        "agent_id": str(agent_id),
        "status": "queued",
        "status_url": f"/agents/activities/{agent_id}/",
    }
    assert answer["Location"] == answer.json()["status_url"]
    assert int(answer["Retry-After"]) > 0
    assert row(agent_id).context["pages"] == [{"number": 1, "words": []}]
    assert claimed_ids() == [agent_id]
    assert who.get(answer["Location"]).json()["context"]["title"] == "Acme"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"title": ["Field required"]}),
        ({"title": ""}, {"title": ["String should have at least 1 character"]}),
        ({"title": "unknown"}, {"title": ["There is no such title."]}),
        (
            {"title": "x", "pages": [{"number": 1}, {"number": "two", "words": [0, None]}], "options": {"a": []}},
            {
                "pages": {
                    "1": {
                        "number": ["Input should be a valid integer"],
                        "words": {"1": ["Input should be a valid integer"]},
                    }
                },
                "options": {"a": ["Input should be a valid integer"]},
            },
        ),
        ({"title": "x", "first": {}}, {"first": {"number": ["Field required"]}}),
        ([], {"non_field_errors": ["Input should be an object"]}),
    ],
)
def test_errors_come_field_by_field(body: Any, errors: dict[str, Any]) -> None:
    answer = post(enqueuer(), body)

    assert (answer.status_code, answer.json()) == (400, errors)
    assert not Activity.objects.exists()


def test_text_is_no_number() -> None:
    """Strict, as the published schema says."""
    answer = post(enqueuer(), {"title": "x", "first": {"number": "1"}})

    assert answer.json() == {"first": {"number": ["Input should be a valid integer"]}}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"nan", b'{"title": "\\ud800"}', b"[" * 5_000, b"9" * 5_000])
def test_invalid_json_is_refused(body: bytes) -> None:
    answer = enqueuer().post(URL, body, content_type="application/json")

    assert answer.status_code == 400
    assert "JSON parse error" in answer.json()["detail"]


def test_a_nul_character_is_refused_as_no_row_could_hold_it() -> None:
    assert post(enqueuer(), {"title": "a\0"}).status_code == 400


def test_other_types_than_json_are_refused() -> None:
    assert enqueuer().post(URL, {"title": "x"}).status_code == 415


def test_no_body_is_an_empty_context() -> None:
    assert enqueuer().post(URL).json() == {"title": ["Field required"]}


@override_settings(AGENTEXEC={"MAX_CONTEXT_BYTES": 60})
def test_a_large_body_is_refused() -> None:
    answer = post(enqueuer(), {"title": "x", "pages": [{"number": 1}] * 10})

    assert answer.status_code == 413
    assert "60 bytes" in answer.json()["detail"]


def test_only_tasks_that_allow_it_can_be_enqueued_from_outside() -> None:
    who = enqueuer()

    for name in ("shout", "no_such_task", "a/b"):
        assert post(who, {"text": "x"}, f"/agents/tasks/{name}/").status_code == 404
    assert not Activity.objects.exists()


def test_a_name_may_hold_any_character() -> None:
    with outside_task("read / ä?"):
        url = reverse("agentexec:task-enqueue", kwargs={"name": "read / ä?"})

        assert post(enqueuer(), {"title": "x"}, url).status_code == 202


def test_the_tasks_are_listed_with_their_schemas() -> None:
    (task,) = [one for one in enqueuer().get("/agents/tasks/").json() if one["name"] == "read_title"]

    assert (task["name"], task["description"], task["enqueue_url"]) == ("read_title", "Read a title.", URL)
    assert task["context"]["required"] == ["title"]


# Options


def test_an_enqueue_can_wait_and_give_way() -> None:
    answer = post(enqueuer(), {"title": "x"}, f"{URL}?priority=low&delay=60")

    run = row(UUID(answer.json()["agent_id"]))
    assert run.priority == Priority.LOW
    assert run.run_after is not None
    assert 50 < (run.run_after - run.created_at).total_seconds() <= 61


@pytest.mark.parametrize("priority", ["low", "7"])
def test_a_priority_is_given_by_name_or_number(priority: str) -> None:
    answer = post(enqueuer(), {"title": "x"}, f"{URL}?priority={priority}")

    assert row(UUID(answer.json()["agent_id"])).priority == Priority.LOW


@pytest.mark.parametrize(
    ("name", "value"), [("priority", "urgent"), ("priority", "2"), ("delay", "-1"), ("delay", "1e9"), ("queue", "x")]
)
def test_an_impossible_option_is_named(name: str, value: str) -> None:
    answer = post(enqueuer(), {"title": "x"}, f"{URL}?{name}={value}")

    assert answer.status_code == 400
    assert name in answer.json()
    assert not Activity.objects.exists()


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_a_higher_priority_and_metadata_require_the_monitor_permission() -> None:
    theirs, ours = client(member("org-1")), client(admin())

    for option in ("priority=high", "metadata.team=a"):
        assert post(theirs, {"title": "x"}, f"{URL}?{option}").status_code == 403
    answer = post(ours, {"title": "x"}, f"{URL}?priority=high&metadata.team=a")
    run = row(UUID(answer.json()["agent_id"]))
    assert (run.priority, run.metadata) == (Priority.HIGH, {"team": "a"})


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_an_enqueue_of_a_tenant_has_its_stamp() -> None:
    who = client(member("org-1"))

    answer = post(who, {"title": "x"})

    assert row(UUID(answer.json()["agent_id"])).metadata == {"organization_id": "org-1"}
    assert who.get(answer["Location"]).status_code == 200


# Idempotency


def with_key(who: APIClient, body: Any, key: str = "order-7", url: str = URL) -> HttpResponse:
    return post(who, body, url, **{"Idempotency-Key": key})


def test_the_same_request_again_leads_to_the_same_activity() -> None:
    who = enqueuer()
    first = with_key(who, {"title": "Acme"})
    Activity.objects.update(status="running")

    again = with_key(who, {"title": "Acme"})

    assert again.status_code == 202
    assert again.json() == {**first.json(), "status": "running"}
    assert Activity.objects.count() == 1
    assert with_key(who, {"title": "Acme"}, "order-8").json()["agent_id"] != first.json()["agent_id"]


def test_white_space_and_order_of_fields_do_not_change_the_request() -> None:
    who = enqueuer()
    with_key(who, {"title": "Acme", "options": {}})

    again = who.post(
        URL,
        b'{"options": {},   "title": "Acme"}',
        content_type="application/json",
        headers={"Idempotency-Key": "order-7"},
    )

    assert again.status_code == 202
    assert Activity.objects.count() == 1


@pytest.mark.parametrize(("body", "url"), [({"title": "Other"}, URL), ({"title": "Acme"}, f"{URL}?delay=9")])
def test_the_key_with_another_request_is_refused(body: Any, url: str) -> None:
    who = enqueuer()
    with_key(who, {"title": "Acme"})

    assert with_key(who, body, url=url).status_code == 422
    assert Activity.objects.count() == 1


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_equal_keys_of_two_users_create_two_activities() -> None:
    callers = [client(member("org-1")), client(member("org-2")), client(member("org-1", "colleague")), client(admin())]

    ids = {with_key(who, {"title": "Acme"}).json()["agent_id"] for who in callers}

    assert len(ids) == len(callers)


@override_settings(AGENTEXEC={"POLICY": POLICY})
def test_keys_do_not_follow_a_user_to_another_tenant() -> None:
    user = member("org-1")
    first = with_key(client(user), {"title": "Acme"}).json()
    user.first_name = "org-2"
    user.save()

    assert with_key(client(user), {"title": "Acme"}).json()["agent_id"] != first["agent_id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_an_impossible_key_is_refused(key: str) -> None:
    answer = with_key(enqueuer(), {"title": "Acme"}, key)

    assert (answer.status_code, list(answer.json())) == (400, ["Idempotency-Key"])


# Permission and throttle


def test_permission_to_view_does_not_permit_to_enqueue() -> None:
    who = client(staff("viewer", "view_activity"))

    assert post(who, {"title": "x"}).status_code == 403
    assert who.get("/agents/tasks/").status_code == 403


def test_a_session_needs_its_csrf_token() -> None:
    who = APIClient(enforce_csrf_checks=True)
    who.force_login(admin())

    answer = post(who, {"title": "x"})

    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]


def test_enqueueing_is_throttled_though_the_project_sets_no_rate() -> None:
    who = enqueuer()
    codes = [who.post(URL, b"{", content_type="application/json").status_code for _ in range(121)]

    assert codes == [400] * 120 + [429]
    assert who.post(URL)["Retry-After"]
    assert who.get("/agents/tasks/").status_code == 200
    assert post(client(admin()), {"title": "x"}).status_code == 202


@pytest.mark.parametrize(("rate", "last"), [("1/hour", 429), (None, 202)])
def test_the_project_sets_another_rate(rate: str | None, last: int) -> None:
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"agentexec_enqueue": rate}}):
        codes = [post(enqueuer_again(), {"title": "x"}).status_code for _ in range(2)]

    assert codes == [202, last]


def enqueuer_again() -> APIClient:
    from django.contrib.auth.models import User

    known = User.objects.filter(username="enqueuer").first()
    return client(known) if known else enqueuer()


def test_the_body_may_be_any_json_that_fits(django_assert_num_queries: Any) -> None:
    who = enqueuer()

    # Session, user, two for its permissions; then a savepoint around row and log line, which PostgreSQL writes by one.
    with django_assert_num_queries(7 if connection.vendor == "postgresql" else 8):
        answer = who.post(URL, json.dumps({"title": "\U0001f600"}), content_type="application/json")

    assert row(UUID(answer.json()["agent_id"])).context["title"] == "\U0001f600"
