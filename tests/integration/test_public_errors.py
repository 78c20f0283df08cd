"""Texts of errors without the monitor permission: the class and a neutral sentence, or the public text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_agentexec import Pipeline, UserFacingError, activity, step, task
from django_agentexec.live import messages
from django_agentexec.live.messages import MAX_TEXT
from django_agentexec.models import Activity, ActivityLog, CallKind, Conversation
from django_agentexec.redaction import redact_internals
from django_agentexec.schemas import ActivityDetailSchema, ActivityListItemSchema, ActivityLogSchema
from django_agentexec.tasks import registry
from django_agentexec.testing import drain, memory_queue
from tests.support.activity_rows import fail, row, start
from tests.support.admin_pages import ALL, CHANGE_LIST, page_of, signed_in
from tests.support.recorded_calls import add_call
from tests.support.rest_api import POLICY, admin, client, member
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "connect redis://:secret@10.0.0.5"
NEUTRAL = "RuntimeError: An internal error occurred."
TEXTS: list[str] = []
TENANT = {"organization_id": "org-1"}


class Refused(UserFacingError):
    """An exception of a project."""


@pytest.fixture(autouse=True)
def tasks() -> Iterator[None]:
    """Register tasks that fail, and use the memory queue."""

    @task("leaks", max_retries=0)
    def leaks(agent_id: UUID, context: Text) -> None:
        raise RuntimeError(TEXTS[-1])

    @task("retries_a_leak", max_retries=1)
    def retries_a_leak(agent_id: UUID, context: Text) -> None:
        raise RuntimeError(TEXTS[-1])

    @task("raises_a_user_error", max_retries=0)
    def raises_a_user_error(agent_id: UUID, context: Text) -> None:
        raise Refused(TEXTS[-1])

    @task("exposes", max_retries=0, expose_errors=True)
    def exposes(agent_id: UUID, context: Text) -> None:
        raise RuntimeError(TEXTS[-1])

    class LeakingPipeline(Pipeline, name="leaking_pipeline", max_retries=0):
        @step(0, max_retries=1, backoff=lambda number, error: 0.0)
        async def read(self, context: Text) -> Text:
            raise RuntimeError(TEXTS[-1])

    with memory_queue():
        yield


def failed(name: str, text: str = SECRET) -> UUID:
    TEXTS.append(text)  # not the context, which users may see
    run = registry.get(name).enqueue(Text(), metadata=TENANT).agent_id
    drain()
    return run


def seen(run: UUID) -> str:
    """Return all REST responses about a run for a member of the tenant, as text."""
    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        who = client(member("org-1", f"member-{run}"))
        answers = [
            who.get(f"/agents/activities/{run}/").json(),
            who.get(f"/agents/activities/{run}/?after=0").json(),
            who.get("/agents/activities/").json(),
            who.get(f"/agents/activities/{run}/result/").json(),
            who.post(f"/agents/activities/{run}/retry/").json(),
        ]
    return json.dumps(answers)


@pytest.mark.parametrize("name", ["leaks", "retries_a_leak", "leaking_pipeline"])
def test_the_text_of_an_exception_stays_inside(name: str) -> None:
    run = failed(name)

    assert SECRET in row(run).error
    shown = seen(run)
    assert "secret" not in shown
    assert NEUTRAL in shown


def test_between_two_attempts_the_text_stays_inside() -> None:
    run = shout.enqueue(Text(), metadata=TENANT).agent_id
    start(run)
    Activity.objects.filter(agent_id=run).update(max_retries=3)
    fail(run, error=f"RuntimeError: {SECRET}", traceback="T", retry_delay=5.0)

    shown = seen(run)
    assert "secret" not in shown
    assert f"Attempt 1 failed: {NEUTRAL} Next attempt in" in shown


def test_a_failed_try_of_a_step_is_noted_in_both_forms() -> None:
    run = failed("leaking_pipeline")

    (line,) = [one for one in ActivityLog.objects.filter(activity_id=run) if "Next try" in one.message]
    assert SECRET in line.message
    assert "secret" not in str(line.public_message)


@pytest.mark.parametrize(
    ("name", "public"), [("raises_a_user_error", "The file is empty."), ("exposes", "RuntimeError: The file")]
)
def test_texts_written_for_users_are_public(name: str, public: str) -> None:
    run = failed(name, "The file is empty.")

    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        shown = client(member("org-1")).get(f"/agents/activities/{run}/").json()
    assert shown["error"].startswith(public)
    assert public in shown["latest_log_message"]
    assert public in shown["logs"][-1]["message"]
    assert "Traceback" not in json.dumps(shown)


def test_the_monitor_permission_shows_the_whole_text_and_the_public_text() -> None:
    run = failed("leaks")

    shown = client(admin()).get(f"/agents/activities/{run}/").json()

    assert (shown["error"], shown["public_error"]) == (f"RuntimeError: {SECRET}", NEUTRAL)
    assert SECRET in shown["logs"][-1]["message"]
    assert SECRET in client(admin()).get(f"/agents/activities/{run}/result/").json()["detail"]


def test_the_message_of_activity_error_is_public() -> None:
    run = activity.create("import", metadata=TENANT)
    activity.error(run, "The file is empty.")

    assert "Task failed with error: The file is empty." in seen(run)


@pytest.mark.parametrize("template", ["{error!r}", "{error:.30}", "It failed.", "{error} {error}", "{nope}"])
def test_no_template_of_the_settings_lets_it_out(template: str) -> None:
    with override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_ERROR": template, "QUEUE_BACKEND": QUEUE}):
        run = failed("leaks", 'it\'s "secret" of the house')

    assert "secret" not in seen(run)


QUEUE = "django_agentexec.queues.memory.MemoryQueue"


def test_rows_of_an_earlier_release_are_closed_too() -> None:
    run = failed("leaks")
    Activity.objects.update(public_error=None)
    ActivityLog.objects.update(public_message=None)

    shown = seen(run)
    assert "secret" not in shown
    assert NEUTRAL in shown


def test_a_public_text_of_an_earlier_error_is_not_shown() -> None:
    """A worker of an earlier release writes the error, but not the column of the public text."""
    run = failed("raises_a_user_error", "The file is empty.")
    Activity.objects.update(error=f"RuntimeError: {SECRET}", latest_log_message=f"Failed: RuntimeError: {SECRET}")

    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        (item,) = client(member("org-1")).get("/agents/activities/").json()["items"]
    assert (item["agent_id"], item["error"], item["latest_log_message"]) == (str(run), NEUTRAL, f"Failed: {NEUTRAL}")


def test_a_success_clears_the_error() -> None:
    run = failed("raises_a_user_error", "The file is empty.")
    activity.retry(run)
    start(run, fence=row(run).fence + 1)
    activity.complete(run)

    assert (row(run).error, row(run).public_error) == ("", None)


def test_a_search_does_not_find_texts_that_the_caller_may_not_read() -> None:
    failed("leaks")
    failed("raises_a_user_error", "The file is empty.")

    def found(text: str, who: Any) -> int:
        total: int = who.get("/agents/activities/", {"search": text}).json()["total"]
        return total

    with override_settings(AGENTEXEC={"POLICY": POLICY}):
        theirs, ours = client(member("org-1")), client(admin())
        assert [found(text, theirs) for text in ("redis://", "file is empty", "leaks")] == [0, 1, 1]
        assert found("redis://", ours) == 1


@pytest.mark.parametrize("kind", ["snapshot", "activity", "activities"])
def test_live_messages_are_redacted_by_the_same_function(kind: str) -> None:
    found = row(failed("leaks"))
    line = ActivityLogSchema.model_validate(found.logs.last()).model_dump(mode="json")
    item = ActivityListItemSchema.model_validate(found).model_dump(mode="json")
    detail = ActivityDetailSchema.model_validate(found).model_dump(mode="json")
    message = {
        "snapshot": {"type": "snapshot", "activity": detail},
        "activity": {"type": "activity", "activity": item, "logs": [line]},
        "activities": {"type": "snapshot", "activities": [item, item]},
    }[kind]

    assert SECRET in json.dumps(message)
    assert "secret" not in json.dumps(redact_internals(message))


@pytest.mark.parametrize("length", [100, MAX_TEXT - 60, MAX_TEXT - 10, MAX_TEXT, 3 * MAX_TEXT])
@pytest.mark.parametrize(
    "template", ["Task failed with error: {error}", "{error} and {error}", "x" * MAX_TEXT + "{error}"]
)
def test_a_long_error_that_a_live_message_shortens_is_redacted(length: int, template: str) -> None:
    with override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_ERROR": template, "QUEUE_BACKEND": QUEUE}):
        found = row(failed("leaks", ("secret " * length)[:length]))

    for fields in (messages.item(found), messages.detail(found)):
        sent = messages.redacted({"type": "activity", "activity": fields})
        assert "secret" in json.dumps(fields)
        assert "secret" not in json.dumps(sent)
        assert sent["activity"]["error"] == NEUTRAL
        assert max(len(fields["error"]), len(fields["latest_log_message"])) <= MAX_TEXT


def test_an_error_without_a_public_text_is_closed() -> None:
    assert redact_internals({"error": f"ValueError: {SECRET}"})["error"] == "ValueError: An internal error occurred."
    assert redact_internals({"error": SECRET})["error"] == "An internal error occurred."


@pytest.mark.parametrize("name", ["leaks", "leaking_pipeline"])
def test_staff_of_a_tenant_read_no_secret_in_the_admin(name: str) -> None:
    run = failed(name)
    with override_settings(AGENTEXEC={"POLICY": "tests.support.admin_pages.TwoOrganizations"}):
        who = signed_in(*ALL, first_name="org-1")
        pages = [who.get(address).content.decode() for address in (CHANGE_LIST, page_of(run), page_of(run, "live"))]

    assert [("secret" in page, "An internal error occurred." in page) for page in pages] == [(False, True)] * 3
    assert "Traceback (most recent" not in pages[1]
    assert row(run).error.endswith(SECRET)


def test_the_admin_shows_the_private_text() -> None:
    run = failed("leaks")

    assert SECRET in signed_in(*ALL).get(page_of(run)).content.decode()


@override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_INTERNAL_ERROR": "Etwas ging schief.", "QUEUE_BACKEND": QUEUE})
def test_the_neutral_sentence_is_a_setting() -> None:
    failed("leaks")

    assert "RuntimeError: Etwas ging schief." in json.dumps(
        ActivityListItemSchema.model_validate(Activity.objects.get()).model_dump(mode="json")
    )


def test_terminal_control_sequences_are_escaped_before_they_are_stored() -> None:
    run = failed("leaks", "\x1b[2J\x1b]0;owned\x07\nERROR forged line\u202e")

    assert row(run).error == r"RuntimeError: \x1b[2J\x1b]0;owned\x07 ERROR forged line\u202e"


def test_the_text_of_a_tools_exception_stays_inside_in_histories() -> None:
    """Conversations and the inputs of runs repeat what the model read."""
    item = {
        "type": "function_call_output",
        "call_id": "1",
        "output": f"An error occurred while running the tool. Please try again. Error: {SECRET}",
    }
    items = [{"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"}, item]
    conversation = Conversation.objects.import_history("one", items, metadata=TENANT)
    run = Activity.objects.get(pk=activity.create("t", metadata=TENANT))
    add_call(run, CallKind.AGENT, path="", arguments=items)
    page = f"/admin/agentexec/conversation/{conversation.pk}"

    def read(who: Any, editor: Any) -> list[str]:
        answers = [
            who.get(f"/agents/conversations/{conversation.pk}/items/"),
            who.get(f"/agents/activities/{run.pk}/calls/"),
            editor.get(f"{page}/change/"),
            editor.get(f"{page}/export/"),
        ]
        assert [answer.status_code for answer in answers] == [200] * 4
        return [answer.content.decode() for answer in answers]

    with override_settings(AGENTEXEC={"POLICY": POLICY, "STAFF_SEES_ALL_TENANTS": False}):
        editor = signed_in("view_activity", "view_conversation", first_name="org-1")
        for text in read(client(member("org-1")), editor):
            assert "look_up" in text
            assert "secret" not in text
        root = signed_in(name="root", is_superuser=True)
        assert all(SECRET in text for text in read(client(admin()), root))
