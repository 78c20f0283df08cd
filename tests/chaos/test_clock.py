"""The wrong clock: Django and time are shifted together, and monotonic time is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime

import pytest

PRINT = """
import time
import django; django.setup()
from django.utils import timezone
from django_agentexec.models import Activity
print(time.time(), time.time_ns() / 1e9, timezone.now().timestamp(), Activity().created_at.timestamp())
print(time.monotonic())
"""


@pytest.mark.parametrize("shift", [0, 3600, -3600])
def test_a_process_believes_in_its_clock(shift: int) -> None:
    before, since = time.time(), time.monotonic()
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "CHAOS_CLOCK": str(shift)}

    printed = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)

    *times, monotonic = map(float, printed.stdout.split())
    for moment in times:
        assert before + shift <= moment <= datetime.now().timestamp() + shift
    assert since < monotonic < time.monotonic()
