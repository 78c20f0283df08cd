"""System checks of the live updates: missing apps, and unsuitable channel layers. They open no connection."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.module_loading import import_string

from ..channel_layer import IN_MEMORY, configured_backend

_EXAMPLE = (
    'Set CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", '
    '"CONFIG": {"hosts": ["redis://..."]}}}.'
)


def check_channels(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report an error without Channels, and a warning if it is not in `INSTALLED_APPS`."""
    if find_spec("channels") is None:
        return [
            Error(
                "django_agentexec.live is in INSTALLED_APPS, but Channels is not installed.",
                hint="pip install django-agentexec[live], or remove the app: server-sent events need no Channels.",
                id="agentexec.E020",
            )
        ]
    if not apps.is_installed("channels"):
        return [
            Warning(
                "django_agentexec.live is in INSTALLED_APPS, but 'channels' is not.",
                hint='Add "channels"; for websockets under `runserver`, add "daphne" as the first app.',
                id="agentexec.W020",
            )
        ]
    return []


def check_layer(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Report a warning for a layer that does not cross processes, and an error for an unusable layer."""
    backend = configured_backend()
    if not backend:
        return [
            Warning(
                "CHANNEL_LAYERS has no 'default': live pages find the changes of workers by polling the database "
                "once a second.",
                hint=_EXAMPLE,
                id="agentexec.W021",
            )
        ]
    if backend == IN_MEMORY:
        return [
            Warning(
                "CHANNEL_LAYERS['default'] is the in-memory layer, which cannot cross processes: live pages find "
                "the changes of workers by polling the database once a second.",
                hint=_EXAMPLE,
                id="agentexec.W022",
            )
        ]
    return _importable(backend)


def _importable(backend: str) -> list[CheckMessage]:
    try:
        layer = import_string(backend)
    except ImportError as error:
        return [
            Error(
                f"CHANNEL_LAYERS['default'] is {backend!r}, which cannot be imported: {error}.",
                hint="pip install channels-redis. " + _EXAMPLE,
                id="agentexec.E021",
            )
        ]
    if hasattr(layer, "group_send") or hasattr(layer, "__getattr__"):  # the Pub/Sub layer delegates its methods
        return []
    return [
        Error(f"CHANNEL_LAYERS['default'] is {backend!r}, which has no groups.", hint=_EXAMPLE, id="agentexec.E021")
    ]


def install() -> None:
    """Register the checks; called when the app is ready."""
    for check in (check_channels, check_layer):
        register(check, "agentexec")
