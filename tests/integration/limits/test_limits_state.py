"""How full the limits are, in the health check and the metrics."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_agentexec import monitoring
from django_agentexec.limits import Request, get_store, limits
from django_agentexec.limits.rules import buckets_of
from tests.support.health_checks import check_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def used(settings: Any) -> None:
    settings.AGENTEXEC = {
        **settings.AGENTEXEC,
        "MODEL_LIMITS": {
            "gpt-5*": {"rpm": 500, "tpm": 200_000, "concurrency": 50},
            "*": {"rpm": 5, "per": "organization_id"},
        },
    }
    store, shared = get_store(), buckets_of(limits().all[:1], {})
    for number in range(3):
        store.reserve(Request(shared, 1_000, f"call {number}"))


def test_health_shows_the_use(used: None) -> None:
    check = check_of("model limits")

    assert check.ok
    assert check.detail == "gpt-5*: 3 of 500 requests, 3,000 of 200,000 tokens, 3 of 50 calls in progress"


def test_a_closed_limit_is_a_warning(used: None) -> None:
    store, shared = get_store(), buckets_of(limits().all[:1], {})
    store.close_buckets(shared, 500)
    store.reserve(Request(shared, 1, "late"))

    check = check_of("model limits")

    assert (check.ok, check.essential) == (False, False)
    assert "1 waiting, closed by the provider for " in check.detail


def test_the_dashboard_names_a_closed_limit(used: None) -> None:
    assert not any("refuses calls" in problem for problem in monitoring.overview().problems)
    get_store().close_buckets(buckets_of(limits().all[:1], {}), 500)

    problems = monitoring.overview().problems

    assert any(problem.startswith("The provider refuses calls of models 'gpt-5*' for ") for problem in problems)


def test_without_limits_there_is_no_such_check() -> None:
    assert "model limits" not in {check.name for check in monitoring.health().checks}


def metrics(client: Client) -> list[str]:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client.get("/agents/metrics").content.decode().splitlines()


def test_metrics_show_the_use(used: None, client: Client) -> None:
    lines = metrics(client)

    assert 'agentexec_model_limit_used{kind="requests",limit="gpt-5*"} 3.0' in lines
    assert 'agentexec_model_limit{kind="tokens",limit="gpt-5*"} 200000.0' in lines
    assert 'agentexec_model_limit_used{kind="concurrency",limit="gpt-5*"} 3.0' in lines
    assert 'agentexec_model_limit_waiting{limit="gpt-5*"} 0.0' in lines
    assert 'agentexec_model_limit_closed_seconds{limit="gpt-5*"} 0.0' in lines
    assert not any('limit="*' in line for line in lines)


def test_without_limits_there_are_no_such_metrics(client: Client) -> None:
    assert not any("model_limit" in line for line in metrics(client))
