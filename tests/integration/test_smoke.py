import os
import subprocess
import sys
import time

import pytest

from django_agentexec.models import Activity
from tests.testapp.agents import Text, fail, report, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_thin_slice():
    from django.db import connection

    h = report.enqueue(Text(text="hello big world"))
    h2 = shout.enqueue(Text(text="x"))
    h3 = fail.enqueue(Text(text="boom"))
    env = dict(
        os.environ, AGENTEXEC_TEST_SQLITE=str(connection.settings_dict["NAME"]), DJANGO_SETTINGS_MODULE="tests.settings"
    )
    t = time.time()
    out = subprocess.run(
        [sys.executable, "-m", "django", "runagentworkers", "--burst", "-v2", "--workers", "1"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    print(out.stdout, out.stderr, time.time() - t)
    for a in Activity.objects.all():
        print(a, a.result, a.error, [str(l) for l in a.logs.all()])
    assert Activity.objects.get(pk=h.agent_id).result == {"title": "hello big world", "words": 3}
