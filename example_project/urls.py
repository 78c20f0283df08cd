"""The example's URLs: its pages, the REST API of the runs, and the admin with the dashboard."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("example_project.documents.urls")),
    path("agents/", include("django_agentexec.api.urls")),
    path("admin/", admin.site.urls),
]
