"""The example's pages: the runs, and the admin."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("example_project.documents.urls")),
    path("admin/", admin.site.urls),
]
