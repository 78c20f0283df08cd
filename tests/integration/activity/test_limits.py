"""Limits of what handlers, agents and callers write: log messages and metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_agentexec import BaseAgentRunner, InvalidOption, activity
from django_agentexec.models import Activity
from django_agentexec.testing import make_attempt
from tests.support.activity_rows import messages, row
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db(transaction=True)

LONG = "x" * 10_001


class Runner(BaseAgentRunner[Any]):
    async def run(self) -> None:
        """Nothing: only its tool is used."""


async def test_the_agent_is_told_about_a_message_that_is_too_long() -> None:
    run = await activity.acreate("answer")

    answer = await Runner(run).tools.report_status("x" * 1_000_000, 50)

    assert answer.startswith("Error: the status was not saved: The message has 1,000,000 characters")
    assert "MAX_MESSAGE_LENGTH" in answer
    assert await Runner(run).tools.report_status("x" * 10_000, 50) == "The status was saved."


@pytest.mark.parametrize(
    "write",
    [
        lambda run: activity.update(run, LONG),
        lambda run: activity.complete(run, LONG),
        lambda run: activity.cancel(run, LONG),
        lambda run: activity.create("answer", LONG),
    ],
    ids=["update", "complete", "cancel", "create"],
)
def test_a_message_that_is_too_long_is_refused_with_nothing_written(write: Callable[[UUID], object]) -> None:
    run = activity.create("answer", "created")

    with pytest.raises(InvalidOption, match=r"10,001 characters.*allows 10,000"):
        write(run)

    assert (row(run).status, messages(run)) == ("queued", ["created"])
    assert Activity.objects.count() == 1


def test_an_attempt_refuses_a_message_that_is_too_long() -> None:
    attempt = make_attempt()

    with pytest.raises(InvalidOption, match="10,001 characters"):
        attempt.progress(LONG)


def test_an_error_that_is_too_long_is_cut_since_the_activity_must_end() -> None:
    run = activity.create("answer")

    activity.error(run, "y" * 1_000_000)

    assert (row(run).status, row(run).error) == ("error", "y" * 10_000)


@override_settings(AGENTEXEC={"MAX_MESSAGE_LENGTH": 5, "MAX_METADATA_BYTES": 10})
def test_the_limits_are_settings() -> None:
    run = activity.create("answer", "short", metadata={"a": "1"})

    with pytest.raises(InvalidOption, match="allows 5"):
        activity.update(run, "longer")
    with pytest.raises(InvalidOption, match=r"11 bytes.*allows 10"):
        activity.create("answer", "short", metadata={"a": "12"})


@pytest.mark.parametrize(
    "write",
    [
        lambda metadata: activity.create("answer", metadata=metadata),
        lambda metadata: shout.enqueue(Text(text="hello"), metadata=metadata),
    ],
    ids=["create", "enqueue"],
)
def test_metadata_that_is_too_large_is_refused_with_nothing_written(write: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidOption, match="MAX_METADATA_BYTES"):
        write({"note": "\N{SNOWMAN}" * 30_000})

    assert not Activity.objects.exists()
