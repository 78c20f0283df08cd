"""The URLs of the test suite: all that the package offers, mounted as its documentation says."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("agents/", include("django_agentexec.api.urls")),
]
