"""Sign-in: with a password, as a guest, or by the link that the demo prints."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.views import View
from django.views.decorators.debug import sensitive_variables

from ..accounts import DEMO, make_guest


class Welcome(LoginView):
    """Page that requests user and password, and offers to sign in as a guest."""

    template_name = "documents/welcome.html"
    redirect_authenticated_user = True

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add whether guests are permitted."""
        return super().get_context_data(guests=has_guests(), **kwargs)


class EnterAsGuest(View):
    """View that creates a guest, who sees only their own runs."""

    def post(self, request: HttpRequest) -> HttpResponse:
        """Sign the guest in."""
        if not has_guests():
            raise Http404
        login(request, make_guest(), backend="django.contrib.auth.backends.ModelBackend")
        return redirect("documents:runs")


def has_guests() -> bool:
    """Return whether the settings permit guests."""
    return bool(getattr(settings, "GUESTS", False))


@sensitive_variables("password")
def enter(request: HttpRequest, password: str) -> HttpResponseRedirect:
    """Sign in the demo's user: the link, which the demo prints, has the password."""
    user = authenticate(request, username=DEMO, password=password) if settings.DEBUG else None
    if user is None:
        return redirect("documents:welcome")
    login(request, user)
    return redirect("documents:runs")
