"""The system checks of the live updates."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import override_settings

REDIS = {"hosts": ["redis://127.0.0.1:1/0"]}


def found(**settings: Any) -> list[str | None]:
    """Return the ids of the live checks' messages under these settings."""
    with override_settings(**settings):
        numbers = ("020", "021", "022")
        return [message.id for message in run_checks(tags=["agentexec"]) if str(message.id).endswith(numbers)]


def layers(backend: str, **config: Any) -> dict[str, Any]:
    return {"default": {"BACKEND": backend, "CONFIG": config}}


@pytest.mark.parametrize(
    "backend", ["channels_redis.pubsub.RedisPubSubChannelLayer", "channels_redis.core.RedisChannelLayer"]
)
def test_a_layer_that_crosses_processes_is_fine(backend: str) -> None:
    assert found(CHANNEL_LAYERS=layers(backend, **REDIS)) == []


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, "agentexec.W021"),
        (layers("channels.layers.InMemoryChannelLayer"), "agentexec.W022"),
        (layers("channels_redis.nothing.Layer"), "agentexec.E021"),
        (layers("django.http.HttpRequest"), "agentexec.E021"),
    ],
)
def test_a_layer_that_cannot_do_its_work_is_told(setting: dict[str, Any], expected: str) -> None:
    assert found(CHANNEL_LAYERS=setting) == [expected]


def test_channels_missing_among_the_apps_is_told(settings: Any) -> None:
    apps = [app for app in settings.INSTALLED_APPS if app != "channels"]

    assert found(INSTALLED_APPS=apps) == ["agentexec.W020"]
