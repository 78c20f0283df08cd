"""System checks of the live updates: a channel layer that cannot do its work is told at start. Connects to nothing."""

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
    """Refuse to go without Channels, and warn if it is not an app of the project."""
    if find_spec("channels") is None:
        return [
            Error(
                "django_agentexec.live is in INSTALLED_APPS, but Channels is not installed.",
                hint="pip install django-agentexec[live], or take the app out: server-sent events need no Channels.",
                id="agentexec.E020",
            )
        ]
    if not apps.is_installed("channels"):
        return [
            Warning(
                "django_agentexec.live is in INSTALLED_APPS, but 'channels' is not.",
                hint='Add "channels", and for `runserver` with websockets "daphne" as the first app.',
                id="agentexec.W020",
            )
        ]
    return []


def check_layer(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a layer that does not bring workers' changes to the web processes, and refuse an unusable one."""
    backend = configured_backend()
    if not backend:
        return [
            Warning(
                "CHANNEL_LAYERS has no 'default': live pages learn of workers' changes by reading the database "
                "once a second.",
                hint=_EXAMPLE,
                id="agentexec.W021",
            )
        ]
    if backend == IN_MEMORY:
        return [
            Warning(
                "CHANNEL_LAYERS['default'] is the in-memory layer, which cannot cross processes: live pages learn "
                "of workers' changes by reading the database once a second.",
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
    if hasattr(layer, "group_send") or hasattr(layer, "__getattr__"):  # Pub/Sub's layer hands its methods on
        return []
    return [
        Error(f"CHANNEL_LAYERS['default'] is {backend!r}, which has no groups.", hint=_EXAMPLE, id="agentexec.E021")
    ]


def install() -> None:
    """Register the checks; called when the app is ready."""
    for check in (check_channels, check_layer):
        register(check, "agentexec")
