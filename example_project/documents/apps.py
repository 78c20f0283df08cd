"""The app's configuration."""

from __future__ import annotations

from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    """Its `agents` module is found by django-agentexec because it is called so."""

    name = "example_project.documents"
