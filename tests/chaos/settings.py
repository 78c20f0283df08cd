"""Settings of every process of a chaos run: those of the tests, with the tasks of `tests.chaos.agents` and a clock that
may be wrong."""

from __future__ import annotations

from tests.chaos import clock

clock.install()

from tests.settings import *  # noqa: E402, F403
from tests.settings import INSTALLED_APPS  # noqa: E402

INSTALLED_APPS = [*(app for app in INSTALLED_APPS if app != "tests.testapp"), "tests.chaos"]
