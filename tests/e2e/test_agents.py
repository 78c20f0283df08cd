"""Agents of the SDK in a real pool, against a model server on loopback: what their rows contain."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from django_agentexec import Status, activity, get_result
from django_agentexec.models import Activity
from django_agentexec.queues import get_queue
from tests.support.model_server import Answer, Call, ModelServer, Tokens
from tests.support.pool_process import pool, run_burst, until
from tests.testapp.agents import Question, ask

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

REPORT = Call("report_status", {"message": "Analyzing financials", "percentage": 60})


def test_an_agent_reports_its_progress_uses_the_orm_and_is_counted() -> None:
    answers = [
        Answer(calls=[REPORT], tokens=Tokens(100, 40, 20, 5)),
        Answer(calls=[Call("count_runs")], tokens=Tokens(100, 100, 20, 0)),
        Answer("All is well.", tokens=Tokens(200, 150, 30, 0)),
    ]
    with ModelServer(answers) as server:
        handle = ask.enqueue(Question(base_url=server.base_url))
        run_burst("--workers", "1")

    row = Activity.objects.get()
    assert get_result(handle, timeout=1) == "All is well."
    assert [(line.message, line.percentage) for line in row.logs.all()] == [
        ("Waiting to start.", 0),
        ("Task started.", 0),
        ("Agent Clerk started.", 0),
        ("Analyzing financials", 60),
        ("Agent Clerk calls count_runs.", 60),
        ("Task completed successfully.", 100),
    ]
    assert row.usage == {
        "requests": 3,
        "input_tokens": 400,
        "cached_tokens": 290,
        "output_tokens": 70,
        "reasoning_tokens": 5,
        "total_tokens": 470,
    }
    tool_answers = [m["content"] for m in server.requests[2].body["messages"] if m["role"] == "tool"]
    assert tool_answers == ["The status was saved.", "1"]


def test_a_providers_retry_after_is_honoured() -> None:
    with ModelServer([Answer(status=429, headers={"Retry-After": "1234"})]) as server:
        ask.enqueue(Question(base_url=server.base_url))
        run_burst("--workers", "1")

    row = Activity.objects.get()
    assert row.status == Status.QUEUED
    assert row.error.startswith("RateLimitError")
    assert row.run_after is not None
    assert row.run_after - row.updated_at >= timedelta(seconds=1234)
    assert get_queue().stats("default").delayed == 1
    assert row.latest_log_message is not None
    assert f"at {row.run_after:%Y-%m-%d %H:%M:%S} UTC" in row.latest_log_message


def test_a_canceled_agent_stops_while_the_model_thinks() -> None:
    thinking = threading.Event()
    with ModelServer([Answer("Too late.", when=thinking)]) as server:
        handle = ask.enqueue(Question(base_url=server.base_url))
        with pool("--workers", "1", LEASE=600):
            until(lambda: server.requests, "the request")
            activity.cancel(handle.agent_id)
            until(lambda: get_queue().stats("default").leased == 0, "the handler's end", timeout=10)
            thinking.set()

    row = Activity.objects.get()
    assert (row.status, row.result) == (Status.CANCELED, None)


def test_the_usage_of_each_call_is_visible_while_the_run_goes_on_and_outlives_a_cancel() -> None:
    thinking = threading.Event()
    with ModelServer([Answer(calls=[REPORT]), Answer("Too late.", when=thinking)]) as server:
        handle = ask.enqueue(Question(base_url=server.base_url))
        with pool("--workers", "1", LEASE=600):
            until(lambda: Activity.objects.get().usage.get("requests") == 1, "the count of the first call")
            activity.cancel(handle.agent_id)
            until(lambda: get_queue().stats("default").leased == 0, "the handler's end", timeout=10)
            thinking.set()

    row = Activity.objects.get()
    assert (row.status, row.usage["total_tokens"]) == (Status.CANCELED, 120)
