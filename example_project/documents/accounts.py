"""The example's users: the demo's user, who may see every activity, and guests, who see their own."""

from __future__ import annotations

import secrets

from django.contrib.auth.models import User

DEMO = "demo"
GUEST = "guest-"


def make_demo_user() -> str:
    """Create the demo's user, a superuser, or reset its password; return the password."""
    user, _ = User.objects.get_or_create(username=DEMO)
    user.is_staff = user.is_superuser = user.is_active = True
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save()
    return password


def make_guest() -> User:
    """Create a user without a password: the guest is signed in by the session only, and cannot sign in again."""
    return User.objects.create_user(GUEST + secrets.token_hex(6))
