"""Settings of every process of a rolling deploy, with the tasks of `tests.chaos.rolling_deploy.agents` as well."""

from __future__ import annotations

from tests.chaos.settings import *  # noqa: F403
from tests.chaos.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.rolling_deploy"]
