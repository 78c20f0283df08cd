"""The script of docs/api.md, "From JavaScript", in a browser against the real server."""

from __future__ import annotations

import re
from pathlib import Path

from django.contrib.auth.models import Permission, User

from django_agentexec import Status, activity
from django_agentexec.models import Activity
from tests.browser.conftest import Page
from tests.support.activity_rows import start
from tests.support.rest_api import outside_task

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def script() -> str:
    """Return the script of the page; its functions become those of the window."""
    section = PAGE.read_text().split("\n## From JavaScript\n")[1]
    return "\n".join(re.findall(r"^```js\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def test_the_script_of_the_page_enqueues_follows_and_cancels(live_page: Page) -> None:
    User.objects.get().user_permissions.add(Permission.objects.get(codename="enqueue_task"))
    with outside_task():
        live_page.open("/admin/password_change/")  # a form, hence the cookie of the CSRF token
        live_page.tab.evaluate(f"{script()}\nObject.assign(window, {{ list, cancel, enqueue, follow }}); 0")

        live_page.tab.evaluate(
            "enqueue('read_title', { title: 'a' }, 'click-1').then((run) => { window.run = run; }); 0"
        )
        live_page.tab.until("window.run?.agent_id")
        live_page.tab.evaluate(
            "enqueue('read_title', { title: 'a' }, 'click-1').then((run) => { window.again = run; }); 0"
        )
        live_page.tab.until("window.again?.agent_id === run.agent_id")
        found = Activity.objects.get()
        live_page.tab.evaluate("list({ status: 'queued' }).then((page) => { window.page = page; }); 0")
        live_page.tab.until("window.page?.items[0].agent_id === run.agent_id")

        live_page.tab.evaluate("follow(run.agent_id, (activity, lines) => { window.seen = { activity, lines }; }); 0")
        live_page.tab.until("window.seen?.lines.length === 1")
        start(found.agent_id)
        activity.update(found.agent_id, "Reading", percentage=10)
        live_page.tab.until("seen.activity.latest_log_message === 'Reading'")

        live_page.tab.evaluate("cancel(run.agent_id); 0")
        live_page.tab.until("seen.activity.status === 'canceled'")
        found.refresh_from_db()
        assert found.status == Status.CANCELED
        assert live_page.tab.evaluate("seen.lines.map((line) => line.message)").count("Reading") == 1
