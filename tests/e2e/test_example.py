"""The example project over HTTP: who gets in, what they see, and what the forms do without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.browser.example import Example, example
from tests.support.pool_process import until

pytestmark = pytest.mark.e2e

LONG = b"# A lease\n\n" + b"The rent is 100 pounds a month. " * 1_500
"""Of so many pages that it is still being read when the test has looked at it."""


@pytest.fixture(scope="module")
def site() -> Iterator[Example]:
    with example() as running:
        yield running


class Visitor:
    """A browser without JavaScript."""

    def __init__(self, site: Example) -> None:
        self._site = site
        self.http = requests.Session()

    def get(self, path: str) -> requests.Response:
        return self.http.get(self._site.url + path, timeout=30)

    def post(self, path: str, page: str = "/", *, files: Any = None, **fields: str) -> requests.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(page).text)
        assert token, page
        data = {"csrfmiddlewaretoken": token[1], **fields}
        return self.http.post(self._site.url + path, data=data, files=files, timeout=30)

    def enqueue(self, task: str, context: object) -> requests.Response:
        """Start a run over REST."""
        token = self.http.cookies["csrftoken"]
        url = f"{self._site.url}/agents/tasks/{task}/"
        return self.http.post(url, json=context, headers={"X-CSRFToken": token}, timeout=30)

    def start(self, **fields: Any) -> str:
        """Start a run, and return the path of its page."""
        answer = self.post("/", **fields)
        assert answer.status_code == 200, answer.text
        return path_of(answer)

    def status(self, run: str) -> str:
        found = re.search(r'data-status="(\w+)"', self.get(run).text)
        assert found
        return found[1]


def path_of(answer: requests.Response) -> str:
    """Return where one has got to."""
    return urlsplit(answer.url).path


@pytest.fixture
def guest(site: Example) -> Visitor:
    visitor = Visitor(site)
    visitor.post("/welcome/guest/", "/welcome/")
    return visitor


@pytest.fixture
def other(site: Example) -> Visitor:
    visitor = Visitor(site)
    visitor.post("/welcome/guest/", "/welcome/")
    return visitor


def test_nobody_sees_a_run_without_signing_in(site: Example, guest: Visitor) -> None:
    run = guest.start(document="commercial-lease.txt")

    for path in ("/", run, f"{run}result/"):
        assert path_of(Visitor(site).get(path)) == "/welcome/"


def test_the_link_of_the_demo_signs_in_and_a_wrong_one_does_not(site: Example) -> None:
    wrong, right = Visitor(site), Visitor(site)

    assert path_of(wrong.get("/enter/not-the-password/")) == "/welcome/"
    assert path_of(right.get(site.path_of_link)) == "/"
    assert path_of(right.get("/admin/")) == "/admin/"


def test_guests_see_their_own_runs_and_the_demo_s_user_all(site: Example, guest: Visitor, other: Visitor) -> None:
    run = guest.start(document="commercial-lease.txt")
    agent_id = run.split("/")[2]
    staff = Visitor(site)
    staff.get(site.path_of_link)

    for path in (run, f"{run}result/", f"/agents/activities/{agent_id}/"):
        assert guest.get(path).status_code == 200
        assert staff.get(path).status_code == 200
        assert other.get(path).status_code == 404
    assert other.post(f"{run}cancel/").status_code == 404
    assert other.get("/agents/activities/").json()["items"] == []
    assert other.get("/agents/workers/").status_code == 403
    assert path_of(guest.get("/admin/")) == "/admin/login/"


def test_nobody_takes_another_s_documents_by_naming_them(guest: Visitor, other: Visitor) -> None:
    guest.start(files={"upload": ("secret.md", LONG)}, kind="contract")

    refused = other.post("/", document="secret.md")
    accepted = other.enqueue("review_contract", {"document": "secret.md"})

    assert refused.status_code == 400
    assert accepted.status_code == 202
    run = f"/runs/{accepted.json()['agent_id']}/"
    until(lambda: "There is no document" in other.get(run).text, "the agent's refusal")


def test_an_uploaded_document_is_worked_on_and_can_be_canceled_and_run_again(guest: Visitor) -> None:
    run = guest.start(files={"upload": ("my lease.md", LONG)}, kind="contract")
    until(lambda: guest.status(run) == "running", "the start")

    guest.post(f"{run}cancel/", run)
    assert guest.status(run) == "canceled"
    refused = guest.post(f"{run}cancel/", run)
    assert "That cannot be done" in refused.text

    guest.post(f"{run}retry/", run)
    assert guest.status(run) in ("queued", "running")
    guest.post(f"{run}cancel/", run)


def test_what_cannot_be_read_is_told_on_the_page(guest: Visitor) -> None:
    answers = [
        guest.post("/", files={"upload": ("a.pdf", b"%PDF")}),
        guest.post("/"),
        guest.post("/", document="no-such-document.md"),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert "only text can be read" in answers[0].text
    assert "Pick a document" in answers[1].text
    assert guest.get("/agents/activities/").json()["items"] == []


def test_without_a_token_nothing_is_started(site: Example, guest: Visitor) -> None:
    assert guest.http.post(f"{site.url}/", data={"document": "commercial-lease.txt"}, timeout=30).status_code == 403


def test_a_result_is_shown_when_there_is_one(guest: Visitor) -> None:
    run = guest.start(document="marlowe-pike-quarterly-update.md")
    assert "What was found" not in guest.get(run).text

    until(lambda: guest.status(run) == "complete", "the end")

    assert "Adjusted operating profit" in guest.get(run).text
