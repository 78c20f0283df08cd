"""schemathesis attacks the REST API by its own OpenAPI document, and must find nothing."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.test import override_settings
from rest_framework.authentication import BasicAuthentication
from schemathesis import BaseSchema
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder

from django_agentexec import activity
from django_agentexec.api import events
from django_agentexec.api.base import AgentView
from django_agentexec.live import follow_activity
from django_agentexec.queues import WorkerInfo, get_queue
from tests.support.rest_api import outside_task
from tests.testapp.agents import Text, shout

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

AUTHORIZATION = {"Authorization": f"Basic {base64.b64encode(b'admin:secret').decode()}"}
# 422 is for a reused idempotency key, which no schema can express.
ACCEPTED = ["2xx", "401", "403", "404", "409", "422"]
CHECKS = {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}
# Names of time zones and the order of two days are no schema, either.
USAGE = {
    "include-path-regex": "^/agents/usage/",
    "checks": {"positive_data_acceptance": {"expected-statuses": [*ACCEPTED, "400"]}},
}
# A context without NUL characters, since no row can hold them; a fixed seed, so that a failure is caused by a change.
EXAMPLES = int(os.environ.get("AGENTEXEC_TEST_EXAMPLES", "5"))
"""Examples of each operation; `.ci/run` takes more."""
GENERATION = {"max-examples": EXAMPLES, "allow-x00": False}
SEED = int(os.environ.get("AGENTEXEC_TEST_SEED", "1"))
CONFIG = {
    "headers": AUTHORIZATION,
    "generation": GENERATION,
    "workers": 1,
    "checks": CHECKS,
    "seed": SEED,
    "operations": [USAGE],
}
SETTINGS = {
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "REST_FRAMEWORK": {"DEFAULT_THROTTLE_RATES": {"agentexec_enqueue": None}},
    "AGENTEXEC": {"API_MAX_WAIT": 0.02, "LEASE": 600.0},  # short waits, and a worker that stays alive
}


async def snapshot_only(agent_id: UUID, **position: Any) -> AsyncIterator[dict[str, Any]]:
    """Follow an activity for a moment: most of them never change here."""
    async with aclosing(follow_activity(agent_id, **position)) as messages:
        yield await anext(messages)


@pytest.fixture
def api(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseSchema]:
    """The API of a healthy project with activities in each state, seen by a superuser."""
    cache.clear()
    # The views' classes were read from the settings when they were imported.
    monkeypatch.setattr(AgentView, "authentication_classes", [BasicAuthentication])
    monkeypatch.setattr(events, "follow_activity", snapshot_only)
    with override_settings(**SETTINGS), outside_task():
        User.objects.create_superuser("admin", password="secret")
        activity.complete(activity.create("import", metadata={"organization_id": "org-1"}), result={"pages": 3})
        activity.error(activity.create("import"), "no")
        shout.enqueue(Text())
        now = time.time()
        get_queue().register_worker(
            WorkerInfo("w-1", "h", 7, ["default"], 50, quarantine=False, started=now, last_beat=now)
        )
        config = SchemathesisConfig.from_dict(CONFIG)
        yield schemathesis.openapi.from_asgi(
            "/agents/schema/", get_asgi_application(), headers=AUTHORIZATION, config=config
        )


def test_the_api_keeps_its_word(api: BaseSchema) -> None:
    findings, answered = [], set()
    for event in from_schema(api).execute():
        if isinstance(event, NonFatalError):
            findings.append(f"{event.label}: {event.value!r}")
        if isinstance(event, ScenarioFinished):
            findings += list(failures(event.recorder))
            answers = [one.response for one in event.recorder.interactions.values()]
            answered |= {(event.recorder.label, answer.status_code) for answer in answers if answer}

    assert not findings, "\n\n".join(findings)
    assert {
        ("GET /agents/activities/", 200),
        ("GET /agents/activities/{agent_id}/", 200),
        ("GET /agents/activities/{agent_id}/events/", 200),
        ("GET /agents/activities/{agent_id}/result/", 200),
        ("GET /agents/activities/{agent_id}/result/", 409),
        ("POST /agents/activities/{agent_id}/cancel/", 202),
        ("POST /agents/tasks/read_title/", 202),
    } <= answered


def failures(recorder: ScenarioRecorder) -> Iterator[str]:
    """Yield what a scenario has found, each with its request."""
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is not None:
                request = recorder.cases[case_id].value.as_curl_command()
                yield f"{request}\n{check.name}: {check.failure_info.failure}"
