"""The content of calls: what is shown, what is kept after the end, and for how long."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from agents.testing import ScriptedModel
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import activity
from django_agentexec.activity.store import apply_one
from django_agentexec.calls.content import content_of
from django_agentexec.calls.operations import FinishCall
from django_agentexec.calls.pruning import aprune_calls, prune_calls
from django_agentexec.checks import check_trace
from django_agentexec.conf import conf
from django_agentexec.ids import first_id
from django_agentexec.models import Activity, AgentCall, CallKind, CallState, Status
from django_agentexec.pool.services import registered_services
from django_agentexec.testing import drain
from tests.support.activity_rows import start
from tests.support.recorded_calls import DONE, add_call, call, run, say, two_look_ups

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("durable_tasks")]

FIELDS = ("request", "arguments", "output")


def stored(row: Activity, kind: CallKind = CallKind.TOOL) -> list[tuple[Any, Any]]:
    return list(AgentCall.objects.of(row.agent_id).filter(kind=kind).values_list("arguments", "output"))


def shown(row: Activity, **settings: Any) -> Any:
    tool = AgentCall.objects.of(row.agent_id).filter(kind=CallKind.TOOL)[0]
    with override_settings(AGENTEXEC=settings):
        return content_of(tool, monitors=True, fields=FIELDS)


def test_reads_obey_the_setting_at_once() -> None:
    row = run(two_look_ups())
    full, outputs, none = (shown(row, TRACE_CONTENT=value) for value in ("full", "outputs", "none"))
    assert (full.arguments, full.output, full.hidden) == ({"name": "Acme"}, "Acme is fine", ())
    assert (outputs.arguments, outputs.output, outputs.hidden) == (None, "Acme is fine", ("arguments",))
    assert (none.arguments, none.output, none.hidden) == (None, None, ("arguments", "output"))


def test_the_answer_of_a_model_is_shown_without_the_arguments_that_it_chose() -> None:
    row = run(two_look_ups())
    model = AgentCall.objects.of(row.agent_id).filter(kind=CallKind.MODEL)[0]
    assert "Acme" in str(content_of(model, monitors=True).output)
    with override_settings(AGENTEXEC={"TRACE_CONTENT": "outputs"}):
        output = content_of(model, monitors=True).output
    assert "look_up" in str(output)
    assert "Acme" not in str(output)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "code_interpreter_call", "id": "c", "code": "pay(7)"},
        {"type": "file_search_call", "id": "f", "queries": ["pay(7)"]},
        {"type": "apply_patch_call", "call_id": "p", "operation": {"diff": "pay(7)"}},
        {"type": "computer_call", "call_id": "g", "actions": [{"type": "type", "text": "pay(7)"}]},
        {"type": "image_generation_call", "id": "i", "revised_prompt": "pay(7)"},
    ],
    ids=lambda item: item["type"],
)
def test_nor_with_those_of_tools_that_the_provider_runs(item: dict[str, Any]) -> None:
    model = AgentCall(kind=CallKind.MODEL, output={"output": [item]})
    assert "pay(7)" in str(content_of(model, monitors=True).output)
    with override_settings(AGENTEXEC={"TRACE_CONTENT": "outputs"}):
        output = content_of(model, monitors=True).output
    assert item["type"] in str(output)
    assert "pay(7)" not in str(output)


def test_errors_are_reduced_to_their_class_without_content() -> None:
    row = run(ScriptedModel([ConnectionError("of org-9")]))
    failed = AgentCall.objects.of(row.agent_id).get(kind=CallKind.MODEL)
    assert "org-9" in content_of(failed, monitors=True).error
    with override_settings(AGENTEXEC={"TRACE_CONTENT": "none"}):
        assert content_of(failed, monitors=True).error.startswith("ConnectionError: An internal error")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("outputs", (None, "Acme is fine")), ("none", (None, None)), ("full", ({"name": "Acme"}, "Acme is fine"))],
)
def test_content_is_dropped_at_the_end(setting: str, expected: Any, settings: Any) -> None:
    settings.AGENTEXEC = {"TRACE_CONTENT": setting}
    assert stored(run(two_look_ups()))[0] == expected


@pytest.mark.parametrize("setting", ["outputs", "none"])
def test_content_that_a_later_attempt_needs_is_kept_until_the_end(setting: str, settings: Any) -> None:
    settings.AGENTEXEC = {"TRACE_CONTENT": setting}
    scripted = two_look_ups()
    from tests.support.recorded_calls import Empty, clerk

    agent_id = clerk(scripted, fails=1, max_retries=1).enqueue(Empty()).agent_id
    drain()
    row = Activity.objects.get(pk=agent_id)
    assert (row.status, row.result, row.attempt) == (Status.COMPLETE, "Both are fine.", 2)
    assert (len(scripted.calls), DONE["Acme"]) == (3, 1)


def test_a_retry_is_fresh_if_the_content_was_dropped(settings: Any) -> None:
    settings.AGENTEXEC = {"TRACE_CONTENT": "none"}
    scripted = ScriptedModel([[call("look_up", "1", name="Acme")], say("Fine."), say("Good.")])
    row = run(scripted, fails=1)
    settings.AGENTEXEC = {"TRACE_CONTENT": "full"}
    activity.retry(row.agent_id)
    drain()
    row.refresh_from_db()
    assert (row.status, row.result) == (Status.COMPLETE, "Good.")


def test_a_retry_replays_outputs_without_arguments(settings: Any) -> None:
    settings.AGENTEXEC = {"TRACE_CONTENT": "outputs"}
    scripted = two_look_ups()
    row = run(scripted, fails=1)
    activity.retry(row.agent_id)
    drain()
    row.refresh_from_db()
    assert (row.result, len(scripted.calls)) == ("Both are fine.", 3)


def test_a_call_that_ends_after_a_cancel_keeps_no_content(settings: Any) -> None:
    settings.AGENTEXEC = {"TRACE_CONTENT": "none"}
    from tests.support.recorded_calls import Empty, clerk

    agent_id = clerk(two_look_ups()).enqueue(Empty()).agent_id
    row = start(agent_id)
    late = add_call(row, CallKind.TOOL, state=CallState.STARTED)
    activity.cancel(agent_id)
    late.state, late.output, late.arguments = CallState.DONE, "secret", {"a": "secret"}
    apply_one(FinishCall(agent_id=agent_id, fence=row.fence, changed=[late]))
    assert stored(row) == [(None, None)]


def redact(value: Any, field: str, call: AgentCall) -> Any:
    return {"by": field, "of": call.name} if field != "error" else "hidden"


def fail(value: Any, field: str, call: AgentCall) -> Any:
    raise RuntimeError(str(value))


def no_json(value: Any, field: str, call: AgentCall) -> Any:
    return {"hidden": object()}


@pytest.mark.parametrize("setting", [f"{__name__}.redact", redact])
def test_a_function_redacts_each_value(setting: Any) -> None:
    row = run(two_look_ups())
    found = shown(row, TRACE_REDACT=setting)
    assert (found.arguments, found.output) == ({"by": "arguments", "of": "look_up"}, {"by": "output", "of": "look_up"})
    failed = run(ScriptedModel([ConnectionError("of org-9")]))
    with override_settings(AGENTEXEC={"TRACE_REDACT": f"{__name__}.redact"}):
        assert content_of(AgentCall.objects.of(failed.agent_id)[1], monitors=True).error == "hidden"


@pytest.mark.parametrize(
    "path", [f"{__name__}.fail", f"{__name__}.no_json", f"{__name__}.missing", "no.such.module", f"{__name__}.FIELDS"]
)
def test_a_redaction_that_fails_hides_the_value(path: str, caplog: Any) -> None:
    row = run(two_look_ups())
    found = shown(row, TRACE_REDACT=path)
    assert (found.arguments, found.output, found.hidden) == (None, None, ("arguments", "output"))


def test_a_check_refuses_a_function_that_cannot_be_imported() -> None:
    for path, problems in (("no.such.module", ["agentexec.E017"]), (f"{__name__}.redact", []), (redact, []), ("", [])):
        with override_settings(AGENTEXEC={"TRACE_REDACT": path}):
            assert [each.id for each in check_trace(None)] == problems


def test_requests_are_stored_on_request(settings: Any) -> None:
    assert AgentCall.objects.of(run(two_look_ups()).agent_id).exclude(request__isnull=True).count() == 0
    settings.AGENTEXEC = {"TRACE_REQUESTS": True}
    assert AgentCall.objects.of(run(two_look_ups()).agent_id).exclude(request__isnull=True).count() == 3


# Retention


def old_run(days: int, status: Status = Status.COMPLETE, calls: int = 3) -> Activity:
    """Return an activity that ended so long ago."""
    when = timezone.now() - timedelta(days=days)
    row = Activity.objects.create(
        agent_type="t", status=status, finished_at=when if status in ("complete", "error") else None, created_at=when
    )
    AgentCall.objects.bulk_create(
        AgentCall(id=_id(when, row, n), activity=row, kind=CallKind.TOOL, ordinal=n, state=CallState.DONE)
        for n in range(calls)
    )
    return row


def _id(when: Any, row: Activity, number: int) -> Any:
    from uuid import UUID

    return UUID(int=first_id(when).int + row.agent_id.int % 2**60 + number)


def test_old_calls_are_deleted_and_their_activities_stay() -> None:
    old, recent, active = old_run(40), old_run(10), old_run(40, Status.RUNNING)
    assert sum(prune_calls(30 * 86_400, dry_run=True)) == 3
    assert sum(prune_calls(timedelta(days=30))) == 3
    assert set(AgentCall.objects.values_list("activity_id", flat=True)) == {recent.pk, active.pk}
    assert Activity.objects.filter(pk=old.pk).exists()


async def test_the_async_version_deletes_them_too() -> None:
    await sync_to_async(old_run)(40)

    assert [number async for number in aprune_calls(timedelta(days=30))] == [3]


def test_all_calls_of_an_activity_are_deleted_in_one_transaction() -> None:
    old_run(40, calls=5)
    (first, *_) = prune_calls(timedelta(days=30), batch_size=2)
    assert first == 5


def test_the_number_of_queries_depends_on_the_batches_only() -> None:
    for _ in range(5):
        old_run(40)
    with CaptureQueriesContext(connection) as queries:
        assert sum(prune_calls(timedelta(days=30))) == 15
    statements = [each["sql"] for each in queries if each["sql"].split()[0] in ("SELECT", "DELETE")]
    assert len(statements) == 5  # keys, activities, lock, delete, no more keys


def test_the_pool_deletes_calls_after_their_time(settings: Any) -> None:
    old_run(40)
    service = registered_services()["trace pruner"].make("pool")
    service.step()
    assert AgentCall.objects.count() == 3
    settings.AGENTEXEC = {"KEEP_CALLS": "30d"}
    assert conf.KEEP_CALLS == 30 * 86_400
    service.step()
    assert AgentCall.objects.count() == 0


def test_the_terminal_deletes_calls() -> None:
    old_run(40)
    out = StringIO()
    call_command("agentexec", "prune", "--calls", "--older-than", "30d", "--dry-run", stdout=out)
    call_command("agentexec", "prune", "--calls", "--older-than", "30d", stdout=out)
    assert out.getvalue().splitlines() == ["3 would be deleted.", "3 deleted."]
    assert Activity.objects.count() == 1
    with pytest.raises(CommandError):
        call_command("agentexec", "prune", "--calls", "--older-than", "30d", "--type", "t")
