"""The setting `MODEL_LIMITS`: which limits apply to a model, and which values are rejected."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from django_agentexec.limits import Limit, Limits, limits
from django_agentexec.limits.rules import buckets_of, closest, tenant_of
from django_agentexec.queues.memory import MemoryQueue

ONE = {"rpm": 1}


class ForeignQueue(MemoryQueue):
    """A queue of a project on another server."""

    crosses_processes = True


def patterns(setting: dict[str, Any], model: str, provider: str = "") -> list[str]:
    return [limit.pattern for limit in Limits(setting).of(model, provider)]


def test_a_pattern_matches_the_name_or_provider_and_name_in_any_case() -> None:
    setting = {"gpt-5*": ONE, "openai/GPT-5": ONE, "azure/*": ONE, "*": ONE, "gpt-4": ONE}

    assert patterns(setting, "gpt-5", "openai") == ["openai/GPT-5", "gpt-5*", "*"]
    assert patterns(setting, "GPT-5-mini", "azure") == ["azure/*", "gpt-5*", "*"]
    assert patterns(setting, "claude", "anthropic") == ["*"]
    assert patterns({"gpt-5": ONE}, "gpt-5-mini", "openai") == []


def test_openai_and_azure_have_their_names_without_genai_prices() -> None:
    assert patterns({"openai/*": ONE}, "gpt-5", "api.openai.com") == ["openai/*"]
    assert patterns({"azure/*": ONE}, "gpt-5", "acme.openai.azure.com") == ["azure/*"]
    assert patterns({"127.0.0.1:8000/*": ONE}, "local", "127.0.0.1:8000") == ["127.0.0.1:8000/*"]
    assert patterns({"openai/*": ONE}, "gpt-5", "api.openai.com.evil.test") == []


def test_several_limits_of_one_pattern_have_separate_buckets() -> None:
    found = Limits({"gpt-5": [{"rpm": 5}, {"rpm": 2, "per": "org"}, {"rpm": 9, "window": 3600}]}).of("gpt-5", "")

    names = [bucket.name for bucket in buckets_of(found, {"org": "acme"})]

    assert sorted(names) == ["gpt-5", "gpt-5 org=acme", "gpt-5/3600s"]
    assert names[0] == "gpt-5 org=acme"  # those per tenant first


def test_the_times_of_a_limit_may_be_timedeltas() -> None:
    (found,) = Limits({"m": {"rpm": 9, "window": timedelta(hours=1), "margin": timedelta(seconds=2)}}).of("m", "")

    assert (found.span, buckets_of([found], {})[0].name) == (3602.0, "m/3600s")


def test_each_value_of_the_metadata_has_its_bucket() -> None:
    found = Limits({"*": {"rpm": 1, "per": "org"}}).of("m", "")

    def name(metadata: dict[str, Any]) -> str:
        return buckets_of(found, metadata)[0].name

    assert name({}) == "* org="
    assert name({"org": 1}) == name({"org": "1"}) == "* org=1"
    long, hostile = "x" * 200, "a\0b\ud800"
    assert len({name({"org": each}) for each in (long, long + "x", hostile, "a", {"a": 1}, None)}) == 6
    assert all(name({"org": each}).isprintable() and len(name({"org": each})) < 100 for each in (long, hostile))


def test_the_closest_limit_is_the_most_specific_and_the_shared_one() -> None:
    setting = {"*": ONE, "gpt-5*": [{"rpm": 1, "per": "org"}, ONE], "gpt-*": ONE}
    found = buckets_of(Limits(setting).of("gpt-5", ""), {"org": "acme"})

    assert [bucket.name for bucket in closest(found)] == ["gpt-5*"]


def test_the_tenant_is_a_metadata_value(settings: Any) -> None:
    assert tenant_of({"organization_id": 7}) == "7"
    assert tenant_of({"tenant": "x"}) == ""
    settings.AGENTEXEC = {"MODEL_LIMIT_TENANT": "tenant"}
    assert tenant_of({"tenant": "x"}) == "x"
    settings.AGENTEXEC = {"MODEL_LIMIT_TENANT": ""}
    assert tenant_of({"": "x"}) == ""


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"gpt-5": 500}, "must be a dictionary such as"),
        ({"gpt-5": []}, "one dictionary for each"),
        ({"gpt-5": [ONE, ONE]}, "one dictionary for each"),
        ({"gpt-5": {}}, "at least one of rpm, tpm, concurrency"),
        ({"gpt-5": {"per": "org"}}, "at least one of rpm, tpm, concurrency"),
        ({"gpt-5": {"rmp": 5}}, "unknown key 'rmp'. Did you mean 'rpm'?"),
        ({"gpt-5": {"pattern": "x"}}, "unknown key 'pattern'"),
        ({"gpt-5": {"rpm": 0}}, r"\['rpm'\] is 0, but must be a whole number from 1"),
        ({"gpt-5": {"rpm": True}}, "must be a whole number"),
        ({"gpt-5": {"tpm": "200k"}}, "must be a whole number"),
        ({"gpt-5": {"rpm": 1, "window": 0}}, "from 0.1 to 86400"),
        ({"gpt-5": {"rpm": 1, "window": float("nan")}}, "from 0.1 to 86400"),
        ({"gpt-5": {"rpm": 1, "window": timedelta(days=2)}}, "from 0.1 to 86400, or a timedelta"),
        ({"gpt-5": {"rpm": 1, "margin": -1}}, "from 0 to 86400"),
        ({"gpt-5": {"rpm": 1, "per": ""}}, "must be a key of the activities' metadata"),
        ({"": ONE}, "must have patterns of models"),
        ({5: ONE}, "must have patterns of models"),
    ],
)
def test_mistakes_are_named(setting: dict[Any, Any], text: str, settings: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match=text) as raised:
        Limits(setting)

    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": setting}
    assert [(each.id, each.msg) for each in run_checks(tags=["agentexec"])] == [("agentexec.E018", str(raised.value))]


def test_a_setting_of_another_type_is_rejected(settings: Any) -> None:
    settings.AGENTEXEC = {**settings.AGENTEXEC, "MODEL_LIMITS": [500]}
    assert [each.id for each in run_checks(tags=["agentexec"])] == ["agentexec.E001"]


def test_a_queue_that_is_not_on_redis_cannot_keep_limits(settings: Any) -> None:
    settings.AGENTEXEC = {"MODEL_LIMITS": {"*": ONE}, "QUEUE_BACKEND": "tests.unit.limits.test_rules.ForeignQueue"}
    assert [each.id for each in run_checks(tags=["agentexec"])] == ["agentexec.E018"]


def test_a_changed_setting_is_read_again(settings: Any) -> None:
    settings.AGENTEXEC = {"MODEL_LIMITS": {"a": ONE}}
    assert limits().all == [Limit("a", rpm=1)]
    settings.AGENTEXEC = {"MODEL_LIMITS": {"b": ONE}}
    assert limits().all == [Limit("b", rpm=1)]
