"""The admin in German: no page of the package mixes languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from django.test import override_settings
from django.utils import translation

import django_agentexec
from django_agentexec import activity, approvals
from tests.support.activity_rows import start
from tests.support.admin_pages import ALL, CHANGE_LIST, DASHBOARD, page_of, signed_in
from tests.support.approval_rows import waiting
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

CATALOGUE = Path(django_agentexec.__file__).parent / "locale" / "de" / "LC_MESSAGES" / "django.po"

INBOX = "/admin/agentexec/approval/"


@pytest.fixture
def _german() -> Iterator[None]:
    with override_settings(LANGUAGE_CODE="de"), translation.override("de"):
        yield


def english_texts() -> set[str]:
    """Return the texts of the catalogue that German writes differently."""
    pairs = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', CATALOGUE.read_text(), re.M)
    return {english for english, german in pairs if english != german}


def texts_of(page: str) -> set[str]:
    """Return the texts and labels of a page."""
    plain = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    labels = re.findall(r'(?:aria-label|title|placeholder|data-label)="([^"]*)"', plain)
    return {" ".join(unescape(text).split()) for text in (*re.findall(r">([^<>]+)<", plain), *labels)}


@pytest.mark.usefixtures("_german")
def test_no_page_mixes_languages() -> None:
    failed, complete = shout.enqueue(Text()).agent_id, shout.enqueue(Text()).agent_id
    start(failed)
    activity.error(failed, "kaputt")
    start(complete)
    activity.complete(complete, result={"text": "fertig"})
    client = signed_in(*ALL, "enqueue_task", "decide_approval")
    addresses = [CHANGE_LIST, f"{CHANGE_LIST}?status=error", f"{CHANGE_LIST}?metadata=a=b", DASHBOARD]
    addresses += [page_of(failed), page_of(complete), page_of(failed, "retry"), page_of(complete, "copy")]
    (pending,) = waiting(seconds=60)
    waiting({"kind": "question", "title": "Wohin?"}, {"kind": "in_doubt"})
    (decided,) = waiting()
    approvals.reject(decided.id, reason="Nein.")
    addresses += [*(f"{INBOX}?tab={tab}" for tab in ("waiting", "decided", "expired")), page_of(pending.activity_id)]

    for address in addresses:
        page = client.get(address).content.decode()
        main = page[page.index('id="content-main"') :]
        assert texts_of(main) & english_texts() == set(), address
    assert "Fehlgeschlagen" in client.get(CHANGE_LIST).content.decode()


def test_the_catalogue_is_complete() -> None:
    text = CATALOGUE.read_text()

    assert 'msgstr ""\n\n' not in text
    assert "fuzzy" not in text
    assert CATALOGUE.with_suffix(".mo").exists()
