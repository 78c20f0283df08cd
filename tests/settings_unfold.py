"""The suite's settings with django-unfold as the admin's looks."""

from __future__ import annotations

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
ALLOWED_HOSTS = ["localhost"]
