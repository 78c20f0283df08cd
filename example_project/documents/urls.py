"""The pages of the example."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from .views import entry, runs, steering

app_name = "documents"
urlpatterns = [
    path("", runs.Runs.as_view(), name="runs"),
    path("runs/<uuid:agent_id>/", runs.Run.as_view(), name="run"),
    path("runs/<uuid:agent_id>/result/", runs.Result.as_view(), name="result"),
    path("runs/<uuid:agent_id>/cancel/", steering.steer, {"verb": "cancel"}, name="cancel"),
    path("runs/<uuid:agent_id>/retry/", steering.steer, {"verb": "retry"}, name="retry"),
    path("approvals/<uuid:approval_id>/", steering.decide, name="decide"),
    path("welcome/", entry.Welcome.as_view(), name="welcome"),
    path("welcome/guest/", entry.EnterAsGuest.as_view(), name="guest"),
    path("enter/<str:password>/", entry.enter, name="enter"),
    path("leave/", LogoutView.as_view(), name="leave"),
]
