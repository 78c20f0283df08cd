"""Steering in a browser: an activity is canceled and retried, and its page follows."""

from __future__ import annotations

import time

from django_agentexec import Status, activity
from tests.browser.conftest import Page
from tests.support.activity_rows import reporting_activity, row, start
from tests.support.admin_pages import CHANGE_LIST, page_of


def test_cancels_from_the_list_after_a_question(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(CHANGE_LIST)

    page.tab.click(f'input[name=_selected_action][value="{agent_id}"]')
    assert page.tab.text("button[value=cancel_selected]") == "Cancel 1"
    page.tab.follow("button[value=cancel_selected]")
    assert "Cancel 1 activity?" in page.tab.text("h1")
    started = time.monotonic()
    page.tab.follow("button[data-kind=cancel]")

    assert "1 activity was canceled." in page.tab.text(".messagelist")
    assert page.tab.text(".field-state").strip().startswith("Canceled")
    assert time.monotonic() - started < 1
    assert row(agent_id).status == Status.CANCELED


def test_the_page_of_an_activity_moves_to_its_end_without_a_reload(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(page_of(agent_id))
    page.tab.evaluate("window.isTheSamePage = true")

    activity.update(agent_id, "Reading page 3 <of> 9", percentage=33)
    page.tab.until("document.querySelector('#ae-activity progress').value === 33")
    page.tab.until("[...document.querySelectorAll('.ae-text')].at(-1).innerText === 'Reading page 3 <of> 9'")
    activity.complete(agent_id, result={"answer": 42})
    page.tab.until("document.querySelector('#ae-value-result')")

    page.tab.click("section[aria-labelledby=ae-value-result] summary")
    assert '"answer": 42' in page.tab.text("#ae-activity")
    assert page.tab.text("[data-field=status]") == "Complete"
    assert page.tab.evaluate("document.querySelectorAll('.ae-lines li').length") == 5
    assert page.tab.text("[data-announce]").startswith("Complete")
    assert page.tab.evaluate("window.isTheSamePage")


def test_the_page_of_a_canceled_activity_follows_its_new_attempt(page: Page) -> None:
    agent_id = reporting_activity()
    page.open(page_of(agent_id))
    page.tab.follow("a[data-kind=cancel]")
    page.tab.follow("button[data-kind=cancel]")
    assert page.tab.text("[data-field=status]") == "Canceled"

    page.tab.follow("a[data-kind=retry]")
    page.tab.follow("button[data-kind=retry]")
    start(agent_id, fence=2)
    page.tab.until("document.querySelector('.ae-attempt[data-attempt=\"2\"]')")
    activity.update(agent_id, "Once more", percentage=70)

    page.tab.until("document.querySelector('#ae-activity progress').value === 70")
    page.tab.until("document.querySelector('.ae-attempt[data-attempt=\"2\"]').innerText.includes('Once more')")


def test_a_page_that_has_ended_asks_for_nothing(page: Page) -> None:
    agent_id = reporting_activity()
    activity.complete(agent_id)

    page.open(page_of(agent_id))
    page.tab.evaluate("new Promise(done => setTimeout(done, 300))")

    assert page.requests("/live/") == 0


def test_filters_by_what_is_typed_into_the_metadata_form(page: Page) -> None:
    activity.create("import", metadata={"organization_id": "org-1"})
    activity.create("export", metadata={"organization_id": "org-2"})
    page.open(CHANGE_LIST)

    page.tab.click(".ae-menu > summary")
    page.tab.evaluate("document.querySelector('#ae-metadata').value = 'organization_id=org-1'")
    page.tab.follow(".ae-filter button")

    assert page.tab.evaluate("document.querySelectorAll('#result_list tbody tr').length") == 1
    page.tab.follow(".ae-entries a")
    assert page.tab.evaluate("document.querySelectorAll('#result_list tbody tr').length") == 2
