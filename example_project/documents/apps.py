"""The app's configuration."""

from __future__ import annotations

from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    """Configuration of the app. django-agentexec imports its module `agents` by that name."""

    name = "example_project.documents"
