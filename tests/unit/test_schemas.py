"""The wire shapes, read from rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import override_settings

from django_agentexec.models import Activity
from django_agentexec.schemas import ActivityListItemSchema, ActivityListSchema

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def item(**fields: Any) -> ActivityListItemSchema:
    row = Activity(agent_id=UUID(int=7), agent_type="t", created_at=NOON, updated_at=NOON, **fields)
    return ActivityListItemSchema.model_validate(row)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0),
        ({"started_at": NOON}, 0),
        ({"started_at": NOON, "latest_log_timestamp": NOON + timedelta(seconds=5.9)}, 5),
        (
            {
                "started_at": NOON,
                "latest_log_timestamp": NOON + timedelta(seconds=5),
                "finished_at": NOON + timedelta(seconds=9),
            },
            9,
        ),
    ],
)
def test_the_elapsed_time_goes_to_the_end_or_the_latest_message(fields: dict[str, Any], seconds: int) -> None:
    assert item(**fields).elapsed_time_seconds == seconds


def test_a_status_is_its_word_on_the_wire() -> None:
    assert item(status="running").model_dump(mode="json")["status"] == "running"


def test_metadata_is_not_on_the_wire() -> None:
    shape = item(metadata={"org": "secret"})

    assert shape.model_dump()["metadata"] == {}
    assert shape.metadata == {"org": "secret"}


def test_metadata_is_on_the_wire_if_the_settings_say_so() -> None:
    with override_settings(AGENTEXEC={"EXPOSE_METADATA": True}):
        assert item(metadata={"org": "1"}).model_dump()["metadata"] == {"org": "1"}


@pytest.mark.parametrize(("total", "pages"), [(0, 0), (1, 1), (50, 1), (51, 2)])
def test_pages_in_all(total: int, pages: int) -> None:
    assert ActivityListSchema(items=[], total=total, page=1, page_size=50).total_pages == pages
