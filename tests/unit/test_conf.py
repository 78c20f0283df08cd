"""Settings: their types, defaults and limits, and the checks that refuse a wrong configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core import mail
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import override as translation_override

from django_agentexec import checks, task
from django_agentexec.conf import conf, unknown_settings
from django_agentexec.tasks import registry
from tests.testapp.agents import Text


def test_a_setting_that_is_absent_has_its_default() -> None:
    assert (conf.CONCURRENCY, conf.QUEUES, conf.LEASE) == (50, ["default"], 15.0)


class Anything:
    """Stands for a class of the project."""


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("CONCURRENCY", 7, 7),
        ("LEASE", 3, 3.0),
        ("LEASE", timedelta(minutes=1), 60.0),
        ("QUEUES", ("a", "b"), ["a", "b"]),
        ("POLICY", Anything, Anything),
        ("EMBEDDED_DIR", Path("/srv"), "/srv"),
        ("ACTIVITY_MESSAGE_CREATE", gettext_lazy("Waiting"), "Waiting"),
        ("START_METHOD", "spawn", "spawn"),
    ],
)
def test_a_setting_is_read_in_its_type(name: str, given: Any, read: Any) -> None:
    with override_settings(AGENTEXEC={name: given}):
        value = getattr(conf, name)

    assert (value, type(value)) == (read, type(read))


IMPOSSIBLE = [
    ("CONCURRENCY", "50"),
    ("CONCURRENCY", 0),
    ("CONCURRENCY", True),
    ("CONCURRENCY", 1.5),
    ("CONCURRENCY", None),
    ("LEASE", 0.1),
    ("LEASE", float("nan")),
    ("LEASE", float("inf")),
    ("EMBEDDED", 1),
    ("EMBEDDED", "yes"),
    ("QUEUES", "default"),
    ("KEY_PREFIX", b"a"),
    ("START_METHOD", "fork"),
    ("KEY_PREFIX", ""),
    ("KEY_PREFIX", "a b"),
    ("KEY_PREFIX", "{a}"),
    ("RUNNER_LOG", "all"),
    ("MAX_RETRIES", 10**10),
    ("TIMEOUT", 1e300),
    ("LEASE", 10**12),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_refused(name: str, value: Any) -> None:
    with override_settings(AGENTEXEC={name: value}), pytest.raises(ImproperlyConfigured, match=name):
        getattr(conf, name)


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_value_is_told_once_by_the_checks(name: str, value: Any) -> None:
    with override_settings(AGENTEXEC={name: value}):
        assert identifiers() == ["agentexec.E001"]


OFFLINE = (
    checks.check_settings,
    checks.check_templates,
    checks.check_queue,
    checks.check_embedded,
    checks.check_sqlite,
)


def identifiers() -> list[str]:
    """Run the checks that connect to nothing, and return the ids of their messages, each of which has a hint."""
    messages = [message for check in OFFLINE for message in check(None)]
    assert all(message.hint for message in messages)
    return [str(message.id) for message in messages]


def test_the_suites_own_configuration_is_right() -> None:
    assert run_checks(tags=["agentexec"]) == []


def test_settings_that_are_no_dictionary() -> None:
    with override_settings(AGENTEXEC=["CONCURRENCY"]):
        assert identifiers() == ["agentexec.E001"]


@pytest.mark.parametrize(
    ("check", "wrong", "identifier"),
    [
        (checks.check_templates, {"QUEUES": ["a b"]}, "agentexec.E006"),
        (checks.check_templates, {"QUEUE_WEIGHTS": {"default": 0}}, "agentexec.E006"),
        (checks.check_templates, {"ACTIVITY_MESSAGE_STARTED": " "}, "agentexec.E007"),
        (checks.check_rate, {"API_CHANGE_RATE": "many"}, "agentexec.E011"),
        (checks.check_queue, {"QUEUE_BACKEND": "nowhere.Queue"}, "agentexec.E003"),
        (checks.check_policy, {"POLICY": "nowhere.Policy"}, "agentexec.E008"),
        (checks.check_trace, {"TRACE_REDACT": "nowhere.redact"}, "agentexec.E017"),
        (checks.check_limits, {"MODEL_LIMITS": {"a": 1}}, "agentexec.E018"),
    ],
)
def test_a_wrong_setting_hides_no_other_problem(check: Any, wrong: dict[str, Any], identifier: str) -> None:
    with override_settings(AGENTEXEC={"KEEP_CALLS": "soon", **wrong}):
        assert [message.id for message in checks.check_settings(None)] == ["agentexec.E001"]
        assert {message.id for message in check(None)} == {identifier}


@pytest.mark.parametrize("name", ["QUEUES", "POLICY", "API_CHANGE_RATE", "KEY_PREFIX", "MODEL_LIMITS", "TRACE_REDACT"])
def test_checks_that_read_a_wrong_setting_are_skipped(name: str) -> None:
    with override_settings(AGENTEXEC={name: 5}):
        assert [message.id for message in run_checks(tags=["agentexec", "agentexec_tasks"])] == ["agentexec.E001"]


def test_a_setting_in_another_case_is_suggested() -> None:
    with override_settings(AGENTEXEC={"lease": 5, "Policy": "x"}):
        assert unknown_settings() == {"lease": "LEASE", "Policy": "POLICY"}


def test_an_unknown_setting_is_refused_with_the_closest() -> None:
    with override_settings(AGENTEXEC={"CONCURENCY": 5, "zzz": 1, 5: 1}):
        assert unknown_settings() == {"CONCURENCY": "CONCURRENCY", "zzz": "", 5: ""}
        assert identifiers() == ["agentexec.E002"] * 3
        assert "CONCURRENCY" in str(checks.check_settings(None)[0].hint)


@pytest.mark.parametrize("path", ["nowhere.Queue", "django_agentexec.queues.base.Nothing", "Queue", "builtins.dict"])
def test_a_queue_backend_that_is_none(path: str) -> None:
    with override_settings(AGENTEXEC={"QUEUE_BACKEND": path}):
        assert identifiers() == ["agentexec.E003"]


def test_caches_without_redis() -> None:
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        assert identifiers() == ["agentexec.E004"]


def test_the_embedded_server_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mail, "outbox")  # as outside of a test run

    with override_settings(AGENTEXEC={"EMBEDDED": True}, DEBUG=False):
        assert identifiers() == ["agentexec.E005"]


def test_the_embedded_server_in_a_test_run() -> None:
    """Django's runners turn DEBUG off before the checks; `manage.py test` must not be refused for that."""
    with override_settings(AGENTEXEC={"EMBEDDED": True}, DEBUG=False):
        assert identifiers() == []


def test_the_embedded_server_in_development() -> None:
    with override_settings(AGENTEXEC={"EMBEDDED": True}, DEBUG=True):
        assert identifiers() == []


@pytest.mark.parametrize("queues", [[], ["a b"], [1], [""]])
def test_queues_without_a_name(queues: Any) -> None:
    with override_settings(AGENTEXEC={"QUEUES": queues}):
        assert identifiers() == ["agentexec.E006"]
        (message,) = run_checks(tags=["agentexec"])
    if queues:
        assert message.msg == f"AGENTEXEC['QUEUES'] names {queues[0]!r}, which cannot be the name of a queue."
    else:
        assert message.msg == "AGENTEXEC['QUEUES'] is empty, but must name at least one queue."


@pytest.mark.parametrize("weights", [{"default": 0}, {"default": "3"}, {"default": True}, {"a b": 1}])
def test_impossible_weights_of_queues(weights: Any) -> None:
    with override_settings(AGENTEXEC={"QUEUE_WEIGHTS": weights}):
        assert identifiers() == ["agentexec.E006"]


def test_a_weight_of_a_queue_that_is_not_served() -> None:
    with override_settings(AGENTEXEC={"QUEUES": ["high", "low"], "QUEUE_WEIGHTS": {"high": 3, "low": 1, "hihg": 5}}):
        assert identifiers() == ["agentexec.W011"]
        (message,) = run_checks(tags=["agentexec"])
    assert "has a weight for queue 'hihg'" in message.msg
    assert message.hint == "Did you mean 'high'?"


@pytest.mark.parametrize("age", [30, 365.0])
def test_an_age_of_calls_that_may_be_meant_as_days(age: float) -> None:
    with override_settings(AGENTEXEC={"KEEP_CALLS": age}):
        (message,) = run_checks(tags=["agentexec"])
    assert message.id == "agentexec.W012"
    assert message.hint == f"Write '{age}d' if days are meant, otherwise '{age}s'."


@pytest.mark.parametrize("age", [0, 3_600, "30s", timedelta(seconds=30)])
def test_an_age_of_calls_that_can_only_mean_seconds(age: Any) -> None:
    with override_settings(AGENTEXEC={"KEEP_CALLS": age}):
        assert run_checks(tags=["agentexec"]) == []


def test_a_cache_of_answers_that_does_not_exist() -> None:
    with override_settings(AGENTEXEC={"MODEL_CACHE": "answers"}):
        (message,) = run_checks(tags=["agentexec"])
    assert message.id == "agentexec.E035"
    assert message.msg == "AGENTEXEC['MODEL_CACHE'] is 'answers', which CACHES does not contain."


def test_a_queue_name_that_is_none_is_named() -> None:
    with override_settings(AGENTEXEC={"QUEUES": ["default", "a b"]}):
        (message,) = checks.check_templates(None)

    assert str(message.msg) == "AGENTEXEC['QUEUES'] names 'a b', which cannot be the name of a queue."


@pytest.mark.parametrize(
    ("name", "template", "is_right"),
    [
        ("ACTIVITY_MESSAGE_ERROR", "x {nope}", False),
        ("ACTIVITY_MESSAGE_ERROR", "x {", False),
        ("ACTIVITY_MESSAGE_ERROR", "x {}", False),
        ("ACTIVITY_MESSAGE_ERROR", "failed: {error} {{see the log}}", True),
        ("ACTIVITY_MESSAGE_RETRY", "{attempt:03d} {error!r} {delay}", True),
        ("ACTIVITY_MESSAGE_STEP", "{number:d} of {count}: {title}", False),
        ("ACTIVITY_MESSAGE_CREATE", "{is not filled in}", True),
        ("ACTIVITY_MESSAGE_STARTED", " ", False),
    ],
)
def test_a_message_that_cannot_be_filled_in_is_refused(name: str, template: str, is_right: bool) -> None:
    with override_settings(AGENTEXEC={name: template}):
        assert identifiers() == ([] if is_right else ["agentexec.E007"])


def test_the_default_messages_can_be_filled_in() -> None:
    assert [setting.name for setting in conf if setting.template_problem() and setting.placeholders is not None] == []


@pytest.mark.parametrize("url", ["/{id}/", "/{", "/{0}/", "/{agent_id.nope}/"])
def test_a_status_url_that_cannot_be_filled_in(url: str) -> None:
    with override_settings(AGENTEXEC={"STATUS_URL": url}):
        assert identifiers() == ["agentexec.E007"]


class Connection:
    """A database connection, as far as the check looks."""

    def __init__(self, vendor: str, options: dict[str, str]) -> None:
        self.vendor = vendor
        self.settings_dict = {"OPTIONS": options}


@pytest.mark.parametrize(
    ("vendor", "options", "expected"),
    [
        ("sqlite", {}, ["agentexec.W001"]),
        ("sqlite", {"transaction_mode": "IMMEDIATE"}, []),
        ("postgresql", {}, []),
    ],
)
def test_sqlite_in_which_writers_fail_instead_of_waiting(
    vendor: str, options: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "connections", {"default": Connection(vendor, options)})

    assert identifiers() == expected


def test_a_server_that_is_away_does_not_keep_migrate_from_working() -> None:
    away = {"agentexec": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
    with override_settings(CACHES=away):
        assert checks.check_eviction(None) == []


@pytest.fixture
def misdirected() -> Iterator[None]:
    """A task whose queue is misspelled."""
    task("misdirected", queue="defualt")(handler)
    yield
    registry.unregister("misdirected")


def handler(agent_id: UUID, context: Text) -> None:
    """Do nothing."""


@pytest.mark.usefixtures("misdirected")
def test_a_task_whose_queue_is_not_declared_is_warned_of() -> None:
    (message,) = run_checks(tags=["agentexec_tasks"])

    assert message.id == "agentexec.W010"
    assert "Task 'misdirected': queue 'defualt' is not in AGENTEXEC['QUEUES'] (default)" in message.msg
    assert message.msg.endswith("Did you mean 'default'?")
    with override_settings(AGENTEXEC={"QUEUES": ["default", "defualt"]}):
        assert run_checks(tags=["agentexec_tasks"]) == []


def test_only_the_check_command_imports_the_tasks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def discover() -> None:
        raise SyntaxError("an agents.py")

    monkeypatch.setattr(registry, "discover", discover)

    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert run_checks(tags=["agentexec_tasks"]) == []
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    (message,) = run_checks(tags=["agentexec_tasks"])
    assert (message.id, "SyntaxError: an agents.py" in message.msg) == ("agentexec.E010", True)


@pytest.mark.parametrize("rate", ["fast", "0/min", "10", "10/", "/min", "-1/min", "10/week", "1.5/s", "\u0661/min"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with override_settings(AGENTEXEC={"API_CHANGE_RATE": rate}):
        assert "agentexec.E011" in [message.id for message in run_checks(tags=["agentexec"])]


@pytest.mark.parametrize("rate", ["", "10/s", "120/min", "5/hour", "1/day"])
def test_a_rate_is_a_number_and_a_period(rate: str) -> None:
    with override_settings(AGENTEXEC={"API_CHANGE_RATE": rate}):
        assert "agentexec.E011" not in [message.id for message in run_checks(tags=["agentexec"])]


@override_settings(LANGUAGE_CODE="de-li")  # a language whose messages no other test has read
def test_default_messages_are_stored_in_the_language_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = {"Task started.": "Aufgabe gestartet."}
    monkeypatch.setattr("django_agentexec.setting.gettext", lambda text: f"{get_language()}: {catalogue[text]}")
    with translation_override("fr"):  # the language of a request
        assert conf.ACTIVITY_MESSAGE_STARTED == "de-li: Aufgabe gestartet."


@override_settings(AGENTEXEC={"ACTIVITY_MESSAGE_STARTED": "Started."})
def test_a_message_of_the_project_is_not_translated() -> None:
    assert conf.ACTIVITY_MESSAGE_STARTED == "Started."
