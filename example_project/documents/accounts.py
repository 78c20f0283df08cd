"""The example's users: the demo's own, who may see everything, and guests, who see what they started."""

from __future__ import annotations

import secrets

from django.contrib.auth.models import User

DEMO = "demo"
GUEST = "guest-"


def make_demo_user() -> str:
    """Make the demo's user, a superuser, with a new password, and return that."""
    user, _ = User.objects.get_or_create(username=DEMO)
    user.is_staff = user.is_superuser = user.is_active = True
    password = secrets.token_urlsafe(12)
    user.set_password(password)
    user.save()
    return password


def make_guest() -> User:
    """Make a user without a password: who has the session is the guest, and nobody can sign in as them again."""
    return User.objects.create_user(GUEST + secrets.token_hex(6))
