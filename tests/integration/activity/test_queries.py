"""The questions one can ask: pages, details, counts, metadata, and what they cost."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from django_agentexec import ActivityNotFound, InvalidOption, Status, activity
from django_agentexec.models import Activity
from tests.support.activity_rows import row, start
from tests.testapp.agents import Text, shout

pytestmark = pytest.mark.django_db

on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="an index of PostgreSQL")


def created(**metadata: Any) -> str:
    return str(activity.create("import", metadata=metadata))


def ids(**metadata: Any) -> list[str]:
    # A manager's methods cannot take a keyword called `self`; a QuerySet's can.
    return [str(one.agent_id) for one in Activity.objects.all().for_metadata(**metadata).order_by("agent_id")]


# Metadata: the same answer on both databases

VALUES: list[Any] = [
    "org-1",
    "",
    "1",
    "true",
    "null",
    "a'b",
    'a"b',
    "%",
    "\U0001f600",
    1,
    0,
    -7,
    1.5,
    True,
    False,
    None,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_metadata_is_found_by_its_value_and_no_other(value: Any) -> None:
    by_value = {repr(one): created(key=one) for one in VALUES}
    created(other=value)

    assert ids(key=value) == [by_value[repr(value)]]


def test_a_whole_number_is_found_by_its_fraction() -> None:
    whole = created(key=1)

    assert ids(key=1.0) == [whole]


KEYS = [
    "a__b",
    "key__contains",
    "isnull",
    "0",
    "2026",
    "a b",
    "a.b",
    "a'b",
    'a"b',
    "a%b",
    "%s",
    "$",
    "a\\b",
    "[0]",
    "",
    "ä\U0001f600",
    "self",
    "') OR 1=1 --",
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_a_key_is_taken_literally(key: str) -> None:
    wanted = created(**{key: "x"})
    created(a={"b": "x"}, key="x")
    created(**{key: "y"})

    assert ids(**{key: "x"}) == [wanted]


def test_every_value_must_match() -> None:
    created(a=1)
    both = created(a=1, b="x", c=None)

    assert ids(a=1, b="x") == [both]
    assert len(ids()) == 2


def test_a_question_may_go_on_from_another() -> None:
    wanted = created(a=1)
    activity.cancel(created(a=1))  # type: ignore[arg-type]  # text is fine

    assert [str(one.agent_id) for one in Activity.objects.active().for_metadata(a=1).exclude(agent_type="x")] == [
        wanted
    ]
    assert Activity.objects.for_metadata(a=1).finished().count() == 1


@pytest.mark.parametrize("value", [["a"], {"a": 1}, object()], ids=["list", "dictionary", "object"])
def test_filters_by_values_that_databases_compare_differently_are_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match="Cannot filter by metadata"):
        Activity.objects.for_metadata(key=value)


@pytest.mark.parametrize("value", ["\x00", "\ud800", float("nan"), float("inf"), 10**400], ids=lambda v: ascii(v)[:10])
def test_filters_by_values_that_no_row_can_hold_find_nothing(value: Any) -> None:
    created(key="x")

    assert ids(key=value) == []


def test_a_filter_that_is_no_metadata_is_refused() -> None:
    with pytest.raises(InvalidOption):
        activity.list(metadata_filter={1: "x"})  # type: ignore[dict-item]  # the mistake


# Pages


def test_active_activities_come_first_then_the_newest() -> None:
    done, old, new = (activity.create("import") for _ in range(3))
    activity.complete(done)

    page = activity.list()

    assert [item.agent_id for item in page.items] == [new, old, done]
    assert (page.total, page.page, page.page_size, page.total_pages) == (3, 1, 50, 1)


def test_pages_hold_everything_once() -> None:
    wanted = {activity.create("import") for _ in range(5)}

    pages = [activity.list(page=number, page_size=2) for number in (1, 2, 3)]

    assert [len(page.items) for page in pages] == [2, 2, 1]
    assert {item.agent_id for page in pages for item in page.items} == wanted
    assert pages[0].total_pages == 3


def test_a_page_behind_the_end_is_empty() -> None:
    activity.create("import")

    page = activity.list(page=10**12, page_size=1000)

    assert (page.items, page.total) == ([], 1)


@pytest.mark.parametrize("options", [{"page": 0}, {"page": 10**30}, {"page_size": 0}, {"page_size": 1001}])
def test_an_impossible_page_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption):
        activity.list(**options)


def test_a_page_can_be_of_one_tenant() -> None:
    mine = created(org="a")
    created(org="b")

    page = activity.list(metadata_filter={"org": "a"})

    assert ([str(item.agent_id) for item in page.items], page.total) == ([mine], 1)
    assert activity.count_active({"org": "b"}) == 1


def test_metadata_can_be_read_and_is_never_serialized() -> None:
    created(org="secret")

    (item,) = activity.list().items

    assert item.metadata == {"org": "secret"}
    assert "secret" not in item.model_dump_json()


# Details


def test_a_detail_has_all_and_the_log_from_first_to_last() -> None:
    agent_id = shout.enqueue(Text(text="x")).agent_id
    start(agent_id)
    activity.update(agent_id, "Half", 50)

    detail = activity.detail(agent_id)

    assert (detail.status, detail.context, detail.worker) == (Status.RUNNING, {"text": "x"}, "w")
    assert [(line.message, line.percentage) for line in detail.logs] == [
        ("Waiting to start.", 0),
        ("Task started.", 0),
        ("Half", 50),
    ]


@pytest.mark.parametrize("agent_id", [uuid4(), "nonsense"], ids=["unknown", "nonsense"])
def test_the_detail_of_nothing_is_not_found(agent_id: Any) -> None:
    with pytest.raises(ActivityNotFound):
        activity.detail(agent_id)


def test_the_detail_of_another_tenant_is_not_found() -> None:
    with pytest.raises(ActivityNotFound):
        activity.detail(created(org="b"), metadata_filter={"org": "a"})  # type: ignore[arg-type]  # text is fine


# What they cost


def test_a_page_takes_two_queries(django_assert_num_queries: Any) -> None:
    for number in range(20):
        activity.update(activity.create("import", metadata={"n": number}), "x")

    with django_assert_num_queries(2):
        activity.list().model_dump_json()


def test_a_detail_takes_two_queries(django_assert_num_queries: Any) -> None:
    agent_id = activity.create("import")

    with django_assert_num_queries(2):
        activity.detail(agent_id).model_dump_json()


def test_a_count_takes_one_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        activity.count_active()


@pytest.fixture
def many() -> None:
    Activity.objects.bulk_create(
        Activity(agent_type="import", queue="", status=status, metadata={"n": number % 500})
        for number, status in enumerate(["queued", "complete", "error"] * 1000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE agentexec_activity")


@pytest.mark.usefixtures("many")
def test_a_page_is_read_from_its_index() -> None:
    assert "agentexec_active_first" in Activity.objects.active_first()[:50].explain()


@on_postgresql
@pytest.mark.usefixtures("many")
def test_metadata_is_found_by_its_index() -> None:
    assert "agentexec_metadata" in Activity.objects.for_metadata(n=7).explain()


def test_the_questions_of_the_states() -> None:
    queued, running, complete, error, canceled = (shout.enqueue(Text()).agent_id for _ in range(5))
    for agent_id in (running, complete, error):
        start(agent_id)
    activity.complete(complete)
    activity.error(error, "no")
    activity.cancel(canceled)
    by_hand = activity.create("import")
    later = shout.enqueue(Text(), delay=60).agent_id
    objects = Activity.objects

    assert set(objects.active()) == {row(i) for i in (queued, running, by_hand, later)}
    assert set(objects.finished()) == {row(i) for i in (complete, error, canceled)}
    assert set(objects.queued()) == {row(i) for i in (queued, by_hand, later)}
    assert set(objects.due()) == {row(i) for i in (queued, by_hand)}
    assert [one.agent_id for one in objects.running()] == [running]
    assert [one.agent_id for one in objects.failed()] == [error]
    assert [one.agent_id for one in objects.of_type("import")] == [by_hand]
    assert row(by_hand) not in objects.managed()
