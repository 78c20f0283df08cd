"""System checks of database routers: what shares a transaction with the activities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import DEFAULT_DB_ALIAS, router

from .activity.store import database

OWN_LABELS = ("agentexec", "agentexec_schedules")  # apps whose rows are written together with activities


def check_router(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse routers that separate the package's tables, and warn of those that separate them from the project's."""
    using = database()
    own: dict[str, str] = {}
    others: set[str] = set()
    for model in apps.get_models():
        alias = router.db_for_write(model)
        if alias == using:
            continue
        if model._meta.app_label in OWN_LABELS:
            own[model._meta.label] = alias
        else:
            others.add(alias)
    if own:
        return [_separated(using, own)]
    # Activities in the default database are what projects with further databases expect.
    return [_elsewhere(using, others)] if others and using != DEFAULT_DB_ALIAS else []


def _separated(using: str, own: dict[str, str]) -> Error:
    places = ", ".join(f"{label} to {alias!r}" for label, alias in sorted(own.items()))
    return Error(
        f"A database router sends agentexec.Activity to {using!r}, but {places}: they are written in one transaction.",
        hint="Return the same alias for all models with one of the app labels " + ", ".join(OWN_LABELS) + ".",
        id="agentexec.E016",
    )


def _elsewhere(using: str, others: set[str]) -> Warning:
    names = ", ".join(repr(alias) for alias in sorted(others))
    return Warning(
        f"A database router sends activities to {using!r} and other models to {names}: an enqueue takes no part in "
        "transactions there. It may run before they commit, and runs although they are rolled back.",
        hint="Enqueue in transaction.on_commit(..., using=<alias of your models>); see 'Several databases' in "
        "docs/guarantees.md. If that is what you do: SILENCED_SYSTEM_CHECKS = ['agentexec.W016'].",
        id="agentexec.W016",
    )


def install() -> None:
    """Register the checks; called when the app is ready."""
    register(check_router, "agentexec")
