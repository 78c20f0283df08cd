"""The state of circuit breakers in health checks, metrics and the dashboard."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.checks import run_checks
from django.test import override_settings
from prometheus_client.parser import text_string_to_metric_families

from django_agentexec.resilience.options import breaker_options
from tests.support.admin_pages import DASHBOARD, signed_in
from tests.support.breaker_states import note_call
from tests.support.health_checks import check_of
from tests.support.rest_api import admin, client

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("clean_valkey")]

MODEL = "openai/gpt-5"


def break_model(name: str = MODEL) -> None:
    for _ in range(5):
        note_call(name, reason="InternalServerError 500")


def test_health_warns_of_an_open_breaker() -> None:
    assert check_of("models").ok
    break_model()

    check = check_of("models")
    assert (check.ok, check.essential) == (False, False)
    assert check.detail == (
        "Model openai/gpt-5 is not called since it fails (InternalServerError 500): its circuit breaker is open."
    )


def test_prometheus_has_the_state_of_each_breaker() -> None:
    break_model()
    note_call("openai/gpt-5-mini", ok=True)

    text = client(admin()).get("/agents/metrics").content.decode()
    (family,) = [each for each in text_string_to_metric_families(text) if each.name == "agentexec_model_breaker"]
    current = {sample.labels["model"]: sample.labels["state"] for sample in family.samples if sample.value == 1}

    assert current == {"openai/gpt-5": "open", "openai/gpt-5-mini": "closed"}


def test_the_dashboard_has_an_alert_with_its_remedy() -> None:
    break_model()

    data = signed_in("view_activity").get(f"{DASHBOARD}data/").json()
    (found,) = [alert for alert in data["alerts"] if MODEL in alert["subject"]]

    assert (found["label"], found["status"]) == ("Circuit breaker open", "error")
    assert found["text"] == "Its calls fail: InternalServerError 500. Other models are called."
    assert [alert["text"] for alert in data["alerts"] if alert["label"] == "Problem"] == []
    assert [(each["name"], each["state"]) for each in data["overview"]["breakers"]] == [(MODEL, "open")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"failure": 3}, "has the key 'failure', but its keys are 'failures'"),
        ({"failures": -1}, "['failures'] is -1, but must be a whole number from 0 to 10000"),
        ({"failures": 2.5}, "must be a whole number"),
        ({"rate": 2}, "['rate'] is 2, but must be a number from 0 to 1"),
        ({"open": float("nan")}, "['open'] is nan"),
        ({"window": True}, "['window'] is True"),
        ({"window": "1m"}, "['window'] is '1m'"),
    ],
)
def test_a_check_refuses_impossible_options(value: object, message: str) -> None:
    with override_settings(AGENTEXEC={"MODEL_BREAKER": value}):
        found = [each for each in run_checks(tags=["agentexec"]) if each.id == "agentexec.E034"]

    assert len(found) == 1
    assert message in found[0].msg


@override_settings(AGENTEXEC={"MODEL_BREAKER": {"window": timedelta(minutes=2), "open": timedelta(seconds=9)}})
def test_times_may_be_timedeltas() -> None:
    assert (breaker_options().window, breaker_options().open) == (120.0, 9.0)


@override_settings(AGENTEXEC={"MODEL_BREAKER": {"failures": 2}})
def test_options_that_are_left_out_have_their_default() -> None:
    options = breaker_options()

    assert (options.failures, options.window, options.open, options.rate) == (2, 60.0, 30.0, 0.5)
