"""The pages of the example: all runs, and one run."""

from __future__ import annotations

from django.urls import path

from . import views

app_name = "documents"
urlpatterns = [
    path("", views.RunList.as_view(), name="runs"),
    path("runs/<uuid:agent_id>/", views.RunDetail.as_view(), name="run"),
]
