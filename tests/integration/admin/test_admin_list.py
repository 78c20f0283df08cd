"""The admin's list: what it shows, what it finds, and that its cost does not grow with the table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_agentexec import Status, activity
from django_agentexec.admin.filters import task_names
from django_agentexec.ids import first_id
from django_agentexec.models import Activity
from tests.support.activity_rows import start
from tests.support.admin_pages import ALL, CHANGE_LIST, TENANTS, fill, listed, signed_in
from tests.testapp.agents import Keyed, Text, keyed, report, shout

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_row_tells_where_its_run_stands() -> None:
    agent_id = report.enqueue(Text()).agent_id
    start(agent_id)
    activity.add_usage(agent_id, {"input_tokens": 12_000, "output_tokens": 400})
    activity.update(agent_id, "Reading <page> 3", percentage=40)

    page = signed_in(*ALL).get(CHANGE_LIST).content.decode()

    for shown in [
        ">report<",
        str(agent_id)[:18],
        'data-status="running"',
        'value="40"',
        "Reading &lt;page&gt; 3",
        "12.4k",
        "default",
    ]:
        assert shown in page
    assert "<page>" not in page


def test_active_ones_come_first_and_then_the_newest() -> None:
    ended = [activity.create("import") for _ in range(2)]
    for one in ended:
        activity.complete(one)
    active = [activity.create("import") for _ in range(2)]

    assert listed(signed_in("view_activity")) == [*reversed(active), *reversed(ended)]


def count_queries(client: Any, **parameters: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(CHANGE_LIST, parameters).status_code == 200
    return len(queries)


def test_the_number_of_queries_is_the_same_for_ten_thousand_rows() -> None:
    questions: list[dict[str, str]] = [
        {},
        {"p": "3"},
        {"q": "import"},
        {"q": "org-1"},
        {"status": "complete"},
        {"metadata": "organization_id=org-1"},
    ]
    client = signed_in(*ALL)
    fill(120)
    client.get(CHANGE_LIST)  # the first request of a process looks up more
    few = [count_queries(client, **question) for question in questions]

    fill(10_000)

    assert [count_queries(client, **question) for question in questions] == few
    assert max(few) <= 12


def test_the_count_ends_at_its_limit_and_says_so() -> None:
    fill(12)

    with override_settings(AGENTEXEC={"COUNT_LIMIT": 10}):
        client = signed_in(*ALL)
        page = client.get(CHANGE_LIST).content.decode()
        with CaptureQueriesContext(connection) as queries:
            client.get(CHANGE_LIST)

    assert "10+ activities" in page
    assert all("LIMIT" in query["sql"] for query in queries if "COUNT(" in query["sql"])


def test_no_query_of_the_list_reads_a_heavy_column() -> None:
    fill(3, context={"text": "x" * 1000})
    client = signed_in(*ALL)

    with CaptureQueriesContext(connection) as queries:
        client.get(CHANGE_LIST)

    read = [query["sql"] for query in queries if '"agentexec_activity"' in query["sql"]]
    assert read
    assert not any('"context"' in sql or '"traceback"' in sql for sql in read)
    of_results = [sql for sql in read if '"result"' in sql]  # only the beginning, for its first line
    assert all("SUBSTR(" in sql or "pg_column_size(" in sql for sql in of_results)


@pytest.mark.parametrize("order", ["", "1", "-1", "6", "-6"])
def test_each_order_is_that_of_an_index(order: str) -> None:
    fill(500)
    fill(500, agent_type="other")
    client = signed_in(*ALL)
    with CaptureQueriesContext(connection) as queries:
        client.get(CHANGE_LIST, {"o": order} if order else {})
    [rows] = [
        query["sql"] for query in queries if "ORDER BY" in query["sql"] and '"latest_log_message"' in query["sql"]
    ]

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE agentexec_activity; SET enable_seqscan = off; ")
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{rows}")
        plan = "\n".join(str(line[-1]) for line in cursor.fetchall())
        if connection.vendor == "postgresql":
            cursor.execute("RESET enable_seqscan")

    assert ("agent_type" in rows.partition("ORDER BY")[2]) == ("1" in order)
    assert "INDEX" in plan.upper()
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_task_names_are_found_one_seek_each() -> None:
    assert task_names() == []
    for name in ["b", "a", "b", "c"]:
        activity.create(name)

    assert task_names() == ["a", "b", "c"]


# Filters


def test_filters_by_life_status_task_and_queue() -> None:
    client = signed_in("view_activity")
    waiting = shout.enqueue(Text(), queue="slow").agent_id
    by_hand = activity.create("import")
    ended = activity.create("import")
    activity.complete(ended)

    assert listed(client, life="active") == [by_hand, waiting]
    assert listed(client, life="finished") == [ended]
    assert listed(client, status="complete") == [ended]
    assert listed(client, task="shout") == [waiting]
    assert listed(client, queue="slow") == [waiting]
    assert listed(client, queue="-", status="queued") == [by_hand]
    assert listed(client, life="nonsense") == []


def test_filters_by_the_time_of_creation() -> None:
    client = signed_in("view_activity")
    now = timezone.now()
    ids = {days: UUID(int=first_id(now - timedelta(days=days)).int + 1) for days in (0, 3, 20, 90)}
    for agent_id in ids.values():
        activity.create("import", agent_id=agent_id)

    assert listed(client, created="24h") == [ids[0]]
    assert listed(client, created="7d") == [ids[0], ids[3]]
    assert listed(client, created="30d") == [ids[0], ids[3], ids[20]]
    assert listed(client, created="older") == [ids[90]]


def test_filters_by_metadata_from_the_form_and_from_the_address() -> None:
    client = signed_in("view_activity")
    one = activity.create("import", metadata={"organization_id": "org-1", "user_id": 7, "a__b": "x"})
    activity.create("import", metadata={"organization_id": "org-2", "user_id": 7})

    assert listed(client, metadata="organization_id=org-1") == [one]
    assert listed(client, **{"metadata.organization_id": "org-1"}) == [one]
    assert listed(client, metadata=["user_id=7", "organization_id=org-1"]) == [one]
    assert listed(client, metadata="a__b=x") == [one]
    assert listed(client, metadata="organization_id=org") == []
    assert len(listed(client, **{"metadata.user_id": "7"})) == 2


def test_the_metadata_filter_keeps_the_other_parameters() -> None:
    page = signed_in("view_activity").get(CHANGE_LIST, {"status": "queued", "metadata": "a=1", "p": "1"})

    text = page.content.decode()
    assert '<input type="hidden" name="status" value="queued">' in text
    assert '<input type="hidden" name="metadata" value="a=1">' in text
    assert '<input type="hidden" name="p"' not in text
    assert 'href="?status=queued"' in text  # the way back from a=1


@pytest.mark.parametrize("lookup", ["context__contains", "error__icontains", "worker", "agent_type__regex"])
def test_other_lookups_are_refused(lookup: str) -> None:
    assert signed_in("view_activity").get(CHANGE_LIST, {lookup: "x"}).status_code == 400


def test_lists_the_children_of_an_activity() -> None:
    client = signed_in("view_activity")
    parent, child = activity.create("import"), activity.create("import")
    Activity.objects.filter(pk=child).update(parent_id=parent)

    assert listed(client, parent=parent) == [child]
    assert client.get(CHANGE_LIST, {"parent": "no-id"}).status_code == 302


# Search


def test_searches_by_id_by_its_beginning_and_by_task() -> None:
    client = signed_in("view_activity")
    one, other = shout.enqueue(Text()).agent_id, keyed.enqueue(Keyed(key="a")).agent_id

    assert listed(client, q=str(one)) == [one]
    assert listed(client, q=one.hex) == [one]
    assert listed(client, q=str(one)[:24]) == [one]
    assert listed(client, q="SHOU") == [one]
    assert listed(client, q=str(one)[:8]) == [other, one]  # of the same minute
    assert listed(client, q="nothing-of-the-kind") == []


def test_searches_by_metadata() -> None:
    client = signed_in("view_activity")
    one = activity.create("import", metadata={"organization_id": "org-1", "user_id": 7})
    activity.create("export", metadata={"organization_id": "org-1"})

    assert listed(client, q="user_id=7") == [one]
    assert listed(client, q="org-1 import") == [one]
    assert listed(client, q="7") == [one]
    assert listed(client, metadata="user_id=\x00") == []


# Who


def test_without_the_permission_there_is_no_list() -> None:
    assert signed_in("cancel_activity").get(CHANGE_LIST).status_code == 403


@override_settings(AGENTEXEC=TENANTS)
def test_the_policy_hides_rows_of_others() -> None:
    ours = activity.create("import", metadata={"organization_id": "org-1"})
    activity.create("import", metadata={"organization_id": "org-2"})
    client = signed_in(*ALL, first_name="org-1")

    assert listed(client) == [ours]
    assert listed(client, q="org-2") == []
    assert listed(client, metadata="organization_id=org-2") == []


def test_status_values_are_the_choices() -> None:
    page = signed_in("view_activity").get(CHANGE_LIST).content.decode()

    assert all(f"?status={status}" in page for status in Status.values)
