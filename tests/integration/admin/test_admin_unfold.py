"""The admin with django-unfold: every page is rendered. Runs in another process, with its settings."""

from __future__ import annotations

import os
import subprocess
import sys

PAGES = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from unfold.admin import ModelAdmin
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django_agentexec import activity
from django_agentexec.models import Activity
assert isinstance(admin.site.get_model_admin(Activity), ModelAdmin)
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_superuser("root"))
agent_id = activity.create("import", metadata={"organization_id": "org-1"})
changelist = "/admin/agentexec/activity/"
one = f"{changelist}{agent_id}/"
pages = [changelist, f"{changelist}?metadata=organization_id=org-1"]
pages += [f"{changelist}dashboard/", f"{one}change/", f"{one}cancel/"]
for path in [*pages, f"{one}history/", "/admin/agentexec/"]:
    response = client.get(path)
    assert response.status_code == 200, (path, response.status_code)
    assert b"unfold/css/styles.css" in response.content, path
    assert b"ae-" in response.content or "history" in path, path
data = {"action": "cancel_selected", "index": "0", "select_across": "0", "_selected_action": [str(agent_id)]}
assert b"Cancel 1 activity?" in client.post(changelist, data).content
del data["index"]
client.post(changelist, {**data, "post": "yes"})
assert Activity.objects.get().status == "canceled"
activity_pages = client.get(one + "delete/")
assert activity_pages.status_code == 200
"""


def test_every_page_is_made_with_unfold() -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings_unfold",
        "AGENTEXEC_TEST_DATABASE": "null",
        "AGENTEXEC_TEST_SQLITE": ":memory:",
    }

    done = subprocess.run([sys.executable, "-c", PAGES], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
